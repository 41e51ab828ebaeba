//! Groups, and the kernel's own scope: made, changed, moved, ended. Each change and its event are one
//! operation.

use aex_admin_proto::operator::{AgentState, GroupCreateParams, GroupSetParams};
use aex_admin_proto::rpc::{RpcError, code};
use aex_admin_proto::scope::{KERNEL_NAME, ScopeId, ScopeKind};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::Writer;
use super::operator::{Changed, Trouble, invalid, new_budget, reply_of, text_of};
use super::settings::{check_budget, check_name, check_rpm, check_settings, taken};
use crate::core::period;
use crate::core::reserve::Now;
use crate::core::scope::{Recorded, Scope};
use crate::ledger::{Event, LedgerError, NewNode};
use crate::views;

/// Groups above each other.
const MAX_GROUPS_DEEP: usize = 16;
/// Settings that a group has beside those of [`super::settings::clear`].
const BUDGET: &str = "budget";
const RPM: &str = "rpm";

/// What the event of a change says of a scope that is no agent.
pub(super) fn note_of(scope: ScopeId, name: &str, was: Option<&Recorded>, now: &Recorded) -> Value {
    match was {
        Some(was) => json!({ "scope": scope, "name": name, "was": was, "now": now }),
        None => json!({ "scope": scope, "name": name, "now": now }),
    }
}

impl Writer {
    /// The node id of a group by its name; none for the kernel, below which everything is.
    pub(super) fn group_id(&self, name: Option<&str>) -> Result<Option<i64>, Trouble> {
        match name {
            None | Some(KERNEL_NAME) => Ok(None),
            Some(name) => match self.group(name)?.id {
                ScopeId::Node(id) => Ok(Some(id)),
                ScopeId::Agent(_) => Ok(None),
            },
        }
    }

    /// A group that is not deleted, or the kernel.
    fn group(&self, name: &str) -> Result<Scope, Trouble> {
        match self.ledger.node_by_name(name)? {
            Some(group)
                if group.kind != ScopeKind::Run && group.grant.state != AgentState::Closed =>
            {
                Ok(group)
            }
            Some(group) if group.kind == ScopeKind::Group => {
                let text = format!("group {name} is deleted");
                Err(RpcError::new(code::NOT_FOUND, text).into())
            }
            _ => {
                let text = format!("there is no group {name}; see aex group list");
                Err(RpcError::new(code::NOT_FOUND, text).into())
            }
        }
    }

    pub(super) fn create_group(&mut self, params: &GroupCreateParams, now: Now) -> Changed {
        check_name(&params.name)?;
        if let Some(budget_micro) = params.budget_micro {
            check_budget(budget_micro)?;
        }
        if let Some(rpm) = params.rpm {
            check_rpm(rpm)?;
        }
        check_settings(&params.settings, &self.config)?;
        if let Some(scope) = self.ledger.node_by_name(&params.name)? {
            return Err(taken(&scope).into());
        }
        let group = self.group_id(params.parent.as_deref())?;
        self.check_depth(group, None)?;
        let grant = Recorded {
            state: AgentState::Active,
            budget_micro: params.budget_micro,
            rpm: params.rpm,
            settings: params.settings.clone(),
            group,
        };
        let new = NewNode {
            kind: ScopeKind::Group,
            name: &params.name,
            parent: None,
            agent: None,
            grant: &grant,
            created_at_ms: now.wall_ms,
            expires_at_ms: None,
        };
        self.ledger.within(|ledger| {
            let id = ledger.insert_node(&new)?;
            let detail = text_of(&note_of(ScopeId::Node(id), new.name, None, &grant));
            ledger.append(&Event::note(now.wall_ms, None, "group.create", &detail))
        })?;
        self.show_group(&params.name, now)
    }

    pub(super) fn set_group(&mut self, params: &GroupSetParams, now: Now) -> Changed {
        let group = self.group(&params.name)?;
        let mut grant = group.grant.clone();
        let has = |name: &str| params.clear.iter().any(|cleared| cleared == name);
        if has(BUDGET) {
            grant.budget_micro = None;
        }
        if has(RPM) {
            grant.rpm = None;
        }
        if has(BUDGET) && params.budget_micro.is_some() || has(RPM) && params.rpm.is_some() {
            return Err(invalid("a limit cannot be set and cleared at once"));
        }
        grant.budget_micro = new_budget(&grant, params.budget_micro, params.add_micro)?;
        grant.rpm = params.rpm.or(grant.rpm);
        if let Some(rpm) = grant.rpm {
            check_rpm(rpm)?;
        }
        if let Some(parent) = &params.parent {
            if group.kind == ScopeKind::Kernel {
                return Err(invalid(
                    "the kernel's scope is above everything; it has no parent",
                ));
            }
            grant.group = self.group_id(Some(parent))?;
            self.check_depth(grant.group, Some(group.id))?;
        }
        let cleared = params
            .clear
            .iter()
            .filter(|name| *name != BUDGET && *name != RPM);
        let cleared: Vec<String> = cleared.cloned().collect();
        self.new_settings(&mut grant, &params.settings, &cleared, &params.drop_limits)?;
        self.change_group(&group, &grant, "group.set", now)
    }

    /// Not too deep, and in no ring: `moved` may not come below itself.
    fn check_depth(&self, group: Option<i64>, moved: Option<ScopeId>) -> Result<(), Trouble> {
        let mut above = group;
        let mut deep = 1;
        while let Some(id) = above {
            if moved == Some(ScopeId::Node(id)) {
                return Err(invalid("a group cannot be moved below itself"));
            }
            deep += 1;
            if deep > MAX_GROUPS_DEEP {
                return Err(invalid(format!(
                    "groups are at most {MAX_GROUPS_DEEP} deep; move some of them up"
                )));
            }
            above = self.ledger.node(id)?.and_then(|row| row.grant.group);
        }
        let below = moved.map_or(Ok(0), |moved| self.depth_below(moved, 0))?;
        if deep + below > MAX_GROUPS_DEEP {
            return Err(invalid(format!(
                "groups are at most {MAX_GROUPS_DEEP} deep"
            )));
        }
        Ok(())
    }

    /// How many levels of groups there are below one.
    fn depth_below(&self, group: ScopeId, deep: usize) -> Result<usize, LedgerError> {
        let ScopeId::Node(id) = group else {
            return Ok(0);
        };
        if deep > MAX_GROUPS_DEEP {
            return Ok(0);
        }
        let mut deepest = 0;
        for below in self.ledger.nodes_below(id)? {
            if below.kind == ScopeKind::Group {
                deepest = deepest.max(1 + self.depth_below(below.id, deep + 1)?);
            }
        }
        Ok(deepest)
    }

    pub(super) fn turn_group(
        &mut self,
        name: &str,
        state: AgentState,
        action: &str,
        now: Now,
    ) -> Changed {
        let group = self.group(name)?;
        let grant = Recorded {
            state,
            ..group.grant.clone()
        };
        self.change_group(&group, &grant, action, now)
    }

    /// Pause, and cut what is open anywhere below it.
    pub(super) fn sever_group(&mut self, name: &str, now: Now) -> Changed {
        let group = self.group(name)?;
        let view = self.turn_group(name, AgentState::Paused, "group.sever", now)?;
        self.cut_open(&[group.id]);
        Ok(view)
    }

    pub(super) fn delete_group(&mut self, name: &str, now: Now) -> Changed {
        let group = self.group(name)?;
        let ScopeId::Node(id) = group.id else {
            return Err(invalid("not a group"));
        };
        if group.kind == ScopeKind::Kernel {
            return Err(invalid("the kernel's own scope cannot be deleted"));
        }
        let agents = self.ledger.agents_in(id)?;
        let groups = self.ledger.nodes_below(id)?;
        let names = agents.into_iter().map(|(_, name)| format!("agent {name}"));
        let names = names.chain(
            groups
                .into_iter()
                .map(|group| format!("group {}", group.name)),
        );
        let below: Vec<String> = names.take(5).collect();
        if !below.is_empty() {
            let text = format!(
                "group {name} is not empty: {}; move or delete what is below it first",
                below.join(", ")
            );
            return Err(RpcError::new(code::CONFLICT, text).into());
        }
        self.turn_group(name, AgentState::Closed, "group.delete", now)
    }

    fn change_group(&mut self, group: &Scope, grant: &Recorded, action: &str, now: Now) -> Changed {
        let ScopeId::Node(id) = group.id else {
            return Err(invalid("not a group"));
        };
        let detail = text_of(&note_of(group.id, &group.name, Some(&group.grant), grant));
        self.ledger.within(|ledger| {
            ledger.set_node_grant(id, group.kind, grant)?;
            ledger.append(&Event::note(now.wall_ms, None, action, &detail))
        })?;
        self.forget_dropped(group, grant)?;
        // Whoever waits anywhere below it may go now, or never.
        self.stirred.extend(self.waiting.scopes());
        self.show_group(&group.name, now)
    }

    fn show_group(&mut self, name: &str, now: Now) -> Changed {
        let row = self.ledger.node_by_name(name)?;
        let row = row.ok_or_else(|| LedgerError::Value("a group that is gone".to_owned()))?;
        self.show(&row, now)
    }

    /// A scope as it is now.
    pub(super) fn show(&mut self, row: &Scope, now: Now) -> Changed {
        let zone = self.zone_of(row.id)?;
        reply_of(&views::scope(row, &zone, &self.shared, now))
    }

    /// The time zone in which a scope's periods are counted.
    pub(super) fn zone_of(&mut self, scope: ScopeId) -> Result<TimeZone, LedgerError> {
        let path = self.staged.path(&self.ledger, scope)?;
        let mut named = path
            .iter()
            .filter_map(|scope| scope.grant.settings.time_zone.as_deref());
        let named = named.next().and_then(period::zone);
        Ok(named.unwrap_or_else(|| self.config.time_zone.clone()))
    }
}
