//! The harness's own error.

use loadtest::calibrate::{self, Size};

#[tokio::test]
async fn the_harness_measures_what_the_server_knows() {
    let found = calibrate::run(Size::Small).await.unwrap();
    println!("{found}");
    assert_eq!((found.delays.len(), found.stalls.len()), (12, 3));
    for delay in &found.delays {
        assert!(delay.count > 50, "{delay:?}");
        // Never less than what the server spent; on top only the way there and back. A busy
        // machine adds to that, but not to the median of a hundred requests by milliseconds.
        assert!(delay.error_mean_ms > 0.0, "{delay:?}");
        assert!(delay.error_p50_ms < 10.0, "{delay:?}");
    }
    for stall in &found.stalls {
        // An open loop shows everyone's wait, a closed one hides it.
        assert!(stall.open_share > stall.expected_share * 0.5, "{stall:?}");
        assert!(stall.closed_share < stall.expected_share * 0.5, "{stall:?}");
    }
}
