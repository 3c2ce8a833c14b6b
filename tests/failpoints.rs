//! Processes that die at every statement and file operation: in a build that lets them, and loudly not in
//! any other.

#[cfg(feature = "failpoints")]
#[path = "failpoints/dying.rs"]
mod dying;

#[cfg(not(feature = "failpoints"))]
#[test]
fn no_process_dies_at_a_point_in_a_build_without_them() {
    use std::io::Write as _;
    let text =
        "SKIPPED: no process died at a statement or a file operation: .ci/failpoints has them die";
    let _ = writeln!(std::io::stderr(), "{text}");
}
