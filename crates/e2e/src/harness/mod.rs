//! An installation of its own for a test: names that nobody else has, processes that end with the test.
//!
//! The services are the real binaries against the real servers, whose addresses come from the environment, with the same
//! defaults as the binaries'. Without servers a test fails and says so.

mod installation;
mod process;
mod servers;
mod wait;

pub use installation::{Installation, Service};
pub use process::{Process, binary, free_address};
pub use servers::{CLUSTER_NODES, Node, OwnServers, Server};
pub use wait::wait_until;
