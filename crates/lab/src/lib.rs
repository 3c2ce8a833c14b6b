//! The world in a box: generators and mutators that tests and benches share.
