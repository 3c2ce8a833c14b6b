//! The command line: device, relay and demo commands.
