//! An installation for one test: unique names, and processes that end with the test.
//!
//! The services are the real binaries against the real servers, whose addresses come from the environment, with the binaries'
//! defaults. Without servers a test fails with an instruction.

mod damaged_file;
mod disk;
mod installation;
mod operator;
mod parked;
mod process;
mod servers;
mod stacks;
mod trace_collector;
mod wait;

pub use damaged_file::DamagedFile;
pub use disk::{FullDisk, HOW_TO_MOUNT, may_mount};
pub use installation::{Installation, Service};
pub use operator::Ended;
pub use parked::UNKNOWN_SCHEMA;
pub(crate) use process::sockets;
pub use process::{Process, binary, free_address};
pub use servers::{CLUSTER_NODES, Node, OwnServers, Server, State, root};
pub use trace_collector::{CollectedSpan, TraceCollector};
pub use wait::wait_until;
