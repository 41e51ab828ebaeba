//! Refusals in the ledger: few events whatever the flood, and none that moves money.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aex_admin::core::reserve::Now;
use aex_admin_proto::{Refusal, TokenDigest};

use crate::kernel::{Kernel, ask, id};

const REFUSED: &str = "SELECT COUNT(*) FROM events WHERE action = 'request.refused'";

/// A kernel whose clock the test moves.
fn start(home: &std::path::Path) -> (Kernel, Arc<AtomicU64>) {
    let clock = Arc::new(AtomicU64::new(1_000));
    let read = Arc::clone(&clock);
    let kernel = Kernel::start_at(
        home,
        "boot",
        Box::new(move || {
            let ms = read.load(Ordering::Relaxed);
            Now {
                boot_ms: ms,
                wall_ms: i64::try_from(ms).unwrap(),
            }
        }),
    );
    (kernel, clock)
}

#[test]
fn a_flood_of_a_thousand_refusals_is_a_few_events() {
    let home = tempfile::tempdir().unwrap();
    let (mut kernel, clock) = start(home.path());
    let poor = kernel.agent("poor", 1, 60);
    for n in 0..1000_u32 {
        let mut params = ask(&poor, 1, Some(50));
        params.id = id(u8::try_from(n % 250).unwrap());
        match n % 4 {
            // Each of another name, and of another token: one entry each.
            1 => params.model = format!("secret-{n}"),
            2 => params.token = TokenDigest::of(&n.to_be_bytes()),
            _ => {}
        }
        kernel.reserve(params).unwrap_err();
    }
    assert_eq!(kernel.sql::<i64>(REFUSED), 0);
    clock.fetch_add(60_000, Ordering::Relaxed);
    kernel.until(|kernel| kernel.sql::<i64>(REFUSED) == 3);
    let told = |what: &str, code: &str| -> String {
        kernel.sql(&format!(
            "SELECT COALESCE(CAST({what} AS TEXT), '-') FROM events WHERE action = 'request.refused' \
             AND detail ->> '$.code' = '{code}'"
        ))
    };
    assert_eq!(told("agent", "insufficient_budget"), "poor");
    assert_eq!(told("detail ->> '$.count'", "insufficient_budget"), "500");
    assert_eq!(told("detail ->> '$.rule'", "insufficient_budget"), "budget");
    assert_eq!(told("detail ->> '$.model'", "insufficient_budget"), "m");
    assert_eq!(told("detail ->> '$.count'", "model_not_found"), "250");
    assert!(!told("detail", "model_not_found").contains("secret"));
    assert_eq!(told("agent", "invalid_api_key"), "-");
    kernel.audit();
    // Those of a minute that is not over are recorded at a stop.
    assert!(matches!(
        kernel.reserve(ask(&poor, 2, Some(50))),
        Err(Refusal::InsufficientBudget { .. })
    ));
    kernel.stop();
    assert_eq!(kernel.sql::<i64>(REFUSED), 4);
    kernel.audit();
    // A start takes nothing of them up.
    drop(kernel);
    Kernel::start(home.path()).audit();
}
