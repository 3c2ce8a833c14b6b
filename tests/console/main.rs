//! Both consoles, by HTTP and in a real browser.

mod browser;
mod device;
mod operator;

#[path = "../support/http.rs"]
mod http;
#[path = "../support/process.rs"]
mod process;
