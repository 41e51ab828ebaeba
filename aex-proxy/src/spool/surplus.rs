//! Which kept answers go when they are too much: the oldest of whoever has the most, again and again. So a
//! tenant that floods loses its own, and who has no more than an even share loses nothing. Pure.

use std::collections::{BinaryHeap, HashMap};

use aex_admin_proto::scope::ScopeId;

/// One kept answer, as it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weight {
    /// Nothing: its file does not say, and all such are one tenant's.
    pub(super) tenant: Option<ScopeId>,
    pub(super) at_ms: i64,
    pub(super) bytes: u64,
}

/// The places in `kept` of those that go, so that the rest is at most `most_bytes`.
pub(super) fn of(kept: &[Weight], most_bytes: u64) -> Vec<usize> {
    let mut total: u64 = kept.iter().map(|one| one.bytes).sum();
    let mut gone = Vec::new();
    if total <= most_bytes {
        return gone;
    }
    let mut newest_first: Vec<usize> = (0..kept.len()).collect();
    newest_first.sort_unstable_by_key(|&at| std::cmp::Reverse(kept[at].at_ms));
    let mut tenants: HashMap<Option<ScopeId>, (u64, Vec<usize>)> = HashMap::new();
    for at in newest_first {
        let (bytes, places) = tenants.entry(kept[at].tenant).or_default();
        *bytes += kept[at].bytes;
        places.push(at);
    }
    let mut most: BinaryHeap<(u64, Option<ScopeId>)> =
        (tenants.iter().map(|(tenant, (bytes, _))| (*bytes, *tenant))).collect();
    while total > most_bytes {
        let Some((bytes, tenant)) = most.pop() else {
            break;
        };
        let oldest = tenants.get_mut(&tenant).and_then(|(_, left)| left.pop());
        if let Some(at) = oldest {
            total -= kept[at].bytes;
            most.push((bytes - kept[at].bytes, tenant));
            gone.push(at);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(tenant: i64, at_ms: i64, bytes: u64) -> Weight {
        let tenant = (tenant != 0).then_some(ScopeId::Agent(tenant));
        Weight {
            tenant,
            at_ms,
            bytes,
        }
    }

    #[test]
    fn whoever_has_the_most_loses_its_oldest() {
        let all = [
            kept(1, 50, 4),
            kept(2, 10, 4),
            kept(1, 40, 4),
            kept(1, 30, 8),
            kept(0, 20, 8),
        ];
        assert!(of(&all, 28).is_empty());
        assert_eq!(of(&all, 27), [3]);
        // Of two that have as much, one; who has less keeps its, though it is older than all.
        assert_eq!(of(&all, 19), [3, 2]);
        assert_eq!(of(&all, 12), [3, 2, 4]);
        assert_eq!(of(&all, 0).len(), all.len());
        assert!(of(&[], 0).is_empty());
    }

    fn bytes_of(all: &[Weight], tenant: Option<ScopeId>) -> u64 {
        let its = all.iter().filter(|one| one.tenant == tenant);
        its.map(|one| one.bytes).sum()
    }

    proptest! {
        #[test]
        fn who_floods_loses_its_own_before_anybody_smaller_loses_any(
            all in prop::collection::vec((0..5_i64, 0..100_i64, 1..20_u64), 0..60),
            most_bytes in 0..600_u64,
        ) {
            let all: Vec<_> = all.into_iter().map(|(t, at, bytes)| kept(t, at, bytes)).collect();
            let gone = of(&all, most_bytes);
            let (mut left, mut unique) = (all.clone(), gone.clone());
            unique.sort_unstable();
            unique.dedup();
            prop_assert_eq!(unique.len(), gone.len());
            for at in gone {
                let before: u64 = left.iter().map(|one| one.bytes).sum();
                prop_assert!(before > most_bytes, "no more goes than must");
                // Nobody has more than who loses, and it loses its oldest.
                let its = bytes_of(&left, all[at].tenant);
                for other in &left {
                    prop_assert!(bytes_of(&left, other.tenant) <= its);
                    let is_its = other.tenant == all[at].tenant && other.bytes > 0;
                    prop_assert!(!is_its || other.at_ms >= all[at].at_ms);
                }
                left[at].bytes = 0;
            }
            prop_assert!(left.iter().map(|one| one.bytes).sum::<u64>() <= most_bytes);
        }

        #[test]
        fn an_even_share_is_safe_whatever_others_do(
            flood in prop::collection::vec((2..6_i64, 0..100_i64, 1..20_u64), 0..100),
            own in prop::collection::vec((0..100_i64, 1..20_u64), 1..10),
        ) {
            let mut all: Vec<_> = own.into_iter().map(|(at, bytes)| kept(1, at, bytes)).collect();
            let (places, own) = (all.len(), bytes_of(&all, Some(ScopeId::Agent(1))));
            all.extend(flood.into_iter().map(|(t, at, bytes)| kept(t, at, bytes)));
            // Five tenants at most.
            for at in of(&all, own * 5) {
                prop_assert!(at >= places);
            }
        }
    }
}
