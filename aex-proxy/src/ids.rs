//! Ids of requests, from randomness that is fetched for many at once.

use std::sync::{Mutex, PoisonError};

use aex_admin_proto::HoldId;

const ID_BYTES: usize = 16;
/// One system call for so many ids.
const STOCK_BYTES: usize = 64 * ID_BYTES;

/// Random bytes, each of which becomes part of one id.
pub struct Ids {
    stock: Mutex<Stock>,
}

struct Stock {
    bytes: [u8; STOCK_BYTES],
    /// Bytes before this offset were used.
    used: usize,
}

impl Default for Ids {
    fn default() -> Self {
        Self {
            stock: Mutex::new(Stock {
                bytes: [0; STOCK_BYTES],
                used: STOCK_BYTES,
            }),
        }
    }
}

impl Ids {
    /// A fresh id.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn next(&self) -> Result<HoldId, getrandom::Error> {
        let mut guard = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        let stock = &mut *guard;
        if stock.used == STOCK_BYTES {
            getrandom::fill(&mut stock.bytes)?;
            stock.used = 0;
        }
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&stock.bytes[stock.used..stock.used + ID_BYTES]);
        stock.used += ID_BYTES;
        Ok(HoldId::from(id))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice_whatever_the_stock() {
        let ids = Ids::default();
        let drawn: HashSet<HoldId> = (0..1000).map(|_| ids.next().unwrap()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(!drawn.contains(&HoldId::from([0; ID_BYTES])));
    }
}
