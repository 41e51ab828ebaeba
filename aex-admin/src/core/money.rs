//! The money of one scope: what was granted, spent, and is held. Integers only.
//!
//! Whole micro-dollars are spent; the fraction of one that has not filled up yet is carried, so a
//! million tiny calls cost what they cost.

use super::price::PICO_PER_MICRO;

/// Largest budget: beyond it picodollars would not fit the ledger's 64 bits. 9,000,000 USD.
pub const MAX_BUDGET_MICRO: i64 = 9_000_000_000_000;

/// One scope's row of money, as the ledger has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// None: no limit.
    pub budget_micro: Option<i64>,
    pub spent_micro: i64,
    /// Spent, but less than a micro-dollar together: 0 to 999,999.
    pub carry_pico: i64,
    /// Sum of the open holds.
    pub held_pico: i64,
}

impl Balance {
    /// What is left when every open hold is freed; negative after an overrun or a cut. None: no limit.
    #[must_use]
    pub fn unspent_pico(&self) -> Option<i128> {
        let budget = pico(self.budget_micro?);
        Some(budget - pico(self.spent_micro) - i128::from(self.carry_pico))
    }

    /// What is left for a new hold now, in whole micro-dollars, for people and headers. None: no limit.
    #[must_use]
    pub fn free_micro(&self) -> Option<i64> {
        let unspent_pico = self.unspent_pico()?;
        Some(floor_micro(unspent_pico - i128::from(self.held_pico)))
    }

    /// The open holds in whole micro-dollars, rounded up.
    #[must_use]
    pub fn reserved_micro(&self) -> i64 {
        ceil_micro(i128::from(self.held_pico))
    }

    /// With a hold of `hold_pico` added; nothing when the ledger could not hold the sum.
    #[must_use]
    pub fn with_hold(&self, hold_pico: i64) -> Option<Self> {
        Some(Self {
            held_pico: self.held_pico.checked_add(hold_pico)?,
            ..*self
        })
    }

    /// With a hold of `hold_pico` ended and `cost_pico` spent (negative: a correction). Answers the
    /// balance after it and the whole micro-dollars by which `spent_micro` moved.
    #[must_use]
    pub fn with_commit(&self, hold_pico: i64, cost_pico: i64) -> Option<(Self, i64)> {
        let fraction = self.carry_pico.checked_add(cost_pico)?;
        let cost_micro = fraction.div_euclid(PICO_PER_MICRO);
        let after = Self {
            budget_micro: self.budget_micro,
            spent_micro: self.spent_micro.checked_add(cost_micro)?,
            carry_pico: fraction.rem_euclid(PICO_PER_MICRO),
            // Less is there only when somebody wrote it so from outside; the audit tells.
            held_pico: self.held_pico.saturating_sub(hold_pico).max(0),
        };
        Some((after, cost_micro))
    }
}

fn pico(micro: i64) -> i128 {
    i128::from(micro) * i128::from(PICO_PER_MICRO)
}

/// Whole micro-dollars, rounded down.
#[must_use]
pub fn floor_micro(pico: i128) -> i64 {
    saturate(pico.div_euclid(i128::from(PICO_PER_MICRO)))
}

/// Whole micro-dollars, rounded up.
#[must_use]
pub fn ceil_micro(pico: i128) -> i64 {
    saturate(-(-pico).div_euclid(i128::from(PICO_PER_MICRO)))
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_budget_of_one_micro_pays_for_one_call_of_nine_tenths_not_two() {
        let start = Balance {
            budget_micro: Some(1),
            ..Balance::default()
        };
        assert!(start.unspent_pico() >= Some(900_000));
        let (after, cost_micro) = start.with_commit(0, 900_000).unwrap();
        assert_eq!((cost_micro, after.carry_pico), (0, 900_000));
        assert!(after.unspent_pico() < Some(900_000));
    }

    #[test]
    fn rounding_goes_the_safe_way() {
        assert_eq!(floor_micro(1_999_999), 1);
        assert_eq!(floor_micro(-1), -1);
        assert_eq!(ceil_micro(1), 1);
        assert_eq!(ceil_micro(-1_999_999), -1);
        assert_eq!(ceil_micro(0), 0);
    }

    proptest! {
        #[test]
        fn fractions_are_neither_lost_nor_made(costs in prop::collection::vec(-5_000_000i64..50_000_000, 0..200)) {
            let mut balance = Balance::default();
            let mut micro = 0;
            let mut exact = 0i128;
            for cost in costs {
                let (after, cost_micro) = balance.with_commit(0, cost).unwrap();
                balance = after;
                micro += cost_micro;
                exact += i128::from(cost);
                prop_assert!((0..PICO_PER_MICRO).contains(&balance.carry_pico));
                prop_assert_eq!(balance.spent_micro, micro);
                prop_assert_eq!(pico(balance.spent_micro) + i128::from(balance.carry_pico), exact);
            }
        }
    }
}
