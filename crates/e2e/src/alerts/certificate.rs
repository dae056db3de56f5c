//! The certificate of an ingest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{Datelike as _, Utc};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// A self-signed certificate of an ingest, in files.
#[derive(Debug)]
pub(super) struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificate {
    /// One of 60 days.
    pub(super) fn make(folder: &Path) -> anyhow::Result<Self> {
        let new = Self { certificate: folder.join("ingest.pem"), key: folder.join("ingest.key") };
        new.replace(60)?;
        Ok(new)
    }

    /// The files of `--tls-cert` and `--tls-key`.
    pub(super) fn paths(&self) -> [String; 2] {
        [&self.certificate, &self.key].map(|path| path.display().to_string())
    }

    /// Replaces it by one of so many days.
    pub(super) fn replace(&self, days: u64) -> anyhow::Result<()> {
        let end = Utc::now().date_naive().checked_add_days(chrono::Days::new(days)).context("a date")?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.not_after = date_time_ymd(end.year(), u8::try_from(end.month())?, u8::try_from(end.day())?);
        let key = KeyPair::generate()?;
        fs::write(&self.key, key.serialize_pem())?;
        Ok(fs::write(&self.certificate, params.self_signed(&key)?.pem())?)
    }

    /// Writes what is no certificate.
    pub(super) fn spoil(&self) -> anyhow::Result<()> {
        Ok(fs::write(&self.certificate, "no certificate")?)
    }
}
