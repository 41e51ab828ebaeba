//! Why a request is refused, as an operator reads it afterwards.

use aex_tests::harness::Kernel;
use serde_json::json;

use crate::common::{assert_error, hello, sim};

#[test]
fn a_flood_of_refusals_is_a_few_events_and_status_shows_the_tree() {
    let sim = sim();
    let mut kernel = Kernel::on(&sim);
    let token = kernel.create_agent("atlas", "0.000001", 1000, &[]);
    let status = kernel.aex_json(&["status"]);
    assert_eq!(status["agents"], 1, "{status}");
    assert_eq!(status["scopes"], kernel.aex_json(&["tree"])["scopes"]);
    let before: u64 = kernel
        .sqlite("SELECT COUNT(*) FROM events")
        .trim()
        .parse()
        .unwrap();
    for _ in 0..1000 {
        let answer = kernel.chat(&token, &hello(json!({"max_tokens": 1000})));
        assert_error(&answer, 402, "insufficient_budget");
    }
    kernel.audit();
    kernel.stop();
    let refused = "SELECT SUM(detail ->> '$.count'), MIN(agent), COUNT(*) < 10 FROM events \
                   WHERE action = 'request.refused'";
    assert_eq!(kernel.sqlite(refused).trim(), "1000|atlas|1");
    let after: u64 = kernel
        .sqlite("SELECT COUNT(*) FROM events")
        .trim()
        .parse()
        .unwrap();
    assert!(after - before < 20, "{before} {after}");
}
