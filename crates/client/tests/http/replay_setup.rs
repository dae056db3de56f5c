//! Helpers of the tests of `replay`: a run against a service, and temporary files.

use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use client::replay::{Args, Report, run};
use uuid::Uuid;

use crate::service::Service;

/// A temporary file.
pub(crate) struct TempFile(pub(crate) PathBuf);

impl TempFile {
    pub(crate) fn new(ending: &str) -> Self {
        Self(std::env::temp_dir().join(format!("client-{}{ending}", Uuid::new_v4())))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // It may not exist.
        std::fs::remove_file(&self.0).unwrap_or_default();
    }
}

pub(crate) fn args(service: &Service, options: &str) -> Args {
    let words = ["replay", "--url", &service.url, "--run-id", "test"];
    let args = Args::try_parse_from(words.into_iter().chain(options.split_whitespace())).expect("good options");
    Args { retry_pause: Duration::from_millis(1), ..args }
}

/// A CSV file of commands.
pub(crate) const HEADER: &str = "time,member,action,product,vendor,name,price,quantity\n";

pub(crate) fn file(rows: &str) -> TempFile {
    let file = TempFile::new(".csv");
    std::fs::write(&file.0, format!("{HEADER}{rows}")).expect("a temporary file");
    file
}

pub(crate) async fn replay(service: &Service, options: &str) -> Report {
    run(&args(service, options), pending()).await.expect("a run")
}
