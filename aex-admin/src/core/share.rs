//! How many exchanges each tenant has with each provider. The egress carries a bounded number with one
//! provider, and no tenant may have them all: while few are under way anybody may open more; when most
//! are, only who has less than an even share may.
//!
//! A tenant is the group right below the kernel, or an agent that is in none. Pure. Absent on purpose:
//! limits that an operator sets (`super::reserve`); this one is nobody's setting.

use std::collections::HashMap;

use aex_admin_proto::egress;
use aex_admin_proto::scope::ScopeId;

use super::scope::Charged;

/// Most that there can be.
const MOST: u64 = egress::MAX_EXCHANGES as u64;
/// From here on shares count: three quarters of what the egress carries.
const CROWDED: u64 = MOST / 4 * 3;

/// Open exchanges, by provider and tenant.
#[derive(Debug, Default)]
pub struct Shares {
    providers: HashMap<String, Provider>,
}

#[derive(Debug, Default)]
struct Provider {
    open: u64,
    tenants: HashMap<ScopeId, u64>,
}

/// Whose exchange it is.
#[must_use]
pub fn tenant(agent: i64, charged: &Charged) -> ScopeId {
    (charged.groups.last()).map_or(ScopeId::Agent(agent), |group| ScopeId::Node(*group))
}

impl Shares {
    pub fn opened(&mut self, provider: &str, tenant: ScopeId) {
        if !self.providers.contains_key(provider) {
            self.providers
                .insert(provider.to_owned(), Provider::default());
        }
        if let Some(provider) = self.providers.get_mut(provider) {
            provider.open += 1;
            *provider.tenants.entry(tenant).or_default() += 1;
        }
    }

    pub fn ended(&mut self, provider: &str, tenant: ScopeId) {
        let Some(of) = self.providers.get_mut(provider) else {
            return;
        };
        if let Some(open) = of.tenants.get_mut(&tenant) {
            *open -= 1;
            of.open -= 1;
            if *open == 0 {
                of.tenants.remove(&tenant);
            }
        }
        if of.open == 0 {
            self.providers.remove(provider);
        }
    }

    /// Nothing, or how many exchanges with this provider are the tenant's share, which it has already.
    #[must_use]
    pub fn exhausted(&self, provider: &str, tenant: ScopeId) -> Option<u64> {
        let of = self.providers.get(provider)?;
        if of.open < CROWDED {
            return None;
        }
        let own = of.tenants.get(&tenant).copied().unwrap_or(0);
        let others = of.tenants.len() as u64 - u64::from(own > 0);
        // One share more than there are tenants: room for the next that comes.
        let share = MOST / (others + 2);
        (own >= share || of.open >= MOST).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ScopeId = ScopeId::Agent(1);
    const B: ScopeId = ScopeId::Agent(2);
    const C: ScopeId = ScopeId::Node(3);

    /// Opens as many as it may.
    fn flood(shares: &mut Shares, tenant: ScopeId) -> u64 {
        let mut opened = 0;
        while shares.exhausted("p", tenant).is_none() {
            shares.opened("p", tenant);
            opened += 1;
        }
        opened
    }

    #[test]
    fn a_tenant_that_floods_leaves_room_for_others() {
        let mut shares = Shares::default();
        assert_eq!(flood(&mut shares, A), CROWDED);
        assert_eq!(shares.exhausted("other", A), None);
        let second = flood(&mut shares, B);
        assert!(second > 0 && second < MOST / 3, "{second}");
        // What the first gives back it does not get again while the others have less.
        for _ in 0..CROWDED / 2 {
            shares.ended("p", A);
        }
        let back = flood(&mut shares, A);
        assert!(back < CROWDED / 2, "{back}");
        assert!(shares.exhausted("p", C).is_none());
    }

    #[test]
    fn never_more_than_the_egress_carries() {
        let mut shares = Shares::default();
        let all: u64 = (0..2_000)
            .map(|agent| flood(&mut shares, ScopeId::Agent(agent)))
            .sum();
        assert!(all <= MOST, "{all}");
        assert!(shares.exhausted("p", ScopeId::Agent(5_000)).is_some());
    }

    #[test]
    fn what_ended_is_forgotten() {
        let mut shares = Shares::default();
        for tenant in [A, A, C] {
            shares.opened("p", tenant);
        }
        for tenant in [A, C, A] {
            shares.ended("p", tenant);
        }
        assert!(shares.providers.is_empty());
        // One too many is nobody's.
        shares.ended("p", A);
        assert!(shares.providers.is_empty());
    }

    #[test]
    fn agents_of_one_group_are_one_tenant() {
        let charged = |groups: &[i64]| Charged {
            groups: groups.to_vec(),
            ..Charged::default()
        };
        assert_eq!(tenant(7, &charged(&[])), ScopeId::Agent(7));
        assert_eq!(tenant(7, &charged(&[5, 3])), ScopeId::Node(3));
    }
}
