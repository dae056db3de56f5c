//! The skew of a shop's real carts and vendors, which bounds the share of a partition.

use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;

use anyhow::Context as _;

use super::args::SkewArgs;

/// The first two bytes of every gzip stream (RFC 1952, 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The length of the hour in a time such as 2010-12-01T08:25:53Z.
const HOUR_LEN: usize = 13;

/// The distribution of a shop's commands.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    pub(crate) commands: u64,
    pub(crate) members: u64,
    /// Purchased lines per command.
    pub(crate) lines_a_command: f64,
    /// The standard deviation divided by the mean of a member's commands in the busiest hour.
    pub(crate) variation: f64,
    /// The busiest hour's commands and members.
    pub(crate) hour_commands: u64,
    pub(crate) hour_members: u64,
    /// The maximum number of commands of one member in one hour.
    pub(crate) member_hour_max: u64,
    /// The share of the largest vendor in all purchases.
    pub(crate) vendor_share: f64,
    pub(crate) vendors: u64,
}

impl Skew {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let mut file = BufReader::new(File::open(path).with_context(|| format!("opening {}", path.display()))?);
        let gzipped = file.fill_buf()?.starts_with(&GZIP_MAGIC);
        let reader: Box<dyn Read> =
            if gzipped { Box::new(flate2::bufread::MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut rows = csv::Reader::from_reader(reader);
        let header = rows.headers()?.clone();
        let column = |name: &str| {
            header
                .iter()
                .position(|column| column == name)
                .with_context(|| format!("{} has no column {name}", path.display()))
        };
        let (time, member, action, vendor) = (column("time")?, column("member")?, column("action")?, column("vendor")?);
        let mut hours: HashMap<String, HashMap<String, u64>> = HashMap::new();
        let mut members: HashMap<String, u64> = HashMap::new();
        let mut vendors: HashMap<String, u64> = HashMap::new();
        for row in rows.records() {
            let row = row?;
            let field = |column| row.get(column).unwrap_or_default();
            let hour = field(time).get(..HOUR_LEN).unwrap_or_default();
            count(hours.entry(hour.to_owned()).or_default(), field(member));
            count(&mut members, field(member));
            // Most added lines are bought.
            if field(action) == "add" {
                count(&mut vendors, field(vendor));
            }
        }
        let busiest =
            hours.values().max_by_key(|members| members.values().sum::<u64>()).context("there are no commands")?;
        let lines: u64 = vendors.values().sum();
        let commands: u64 = members.values().sum();
        Ok(Self {
            commands,
            members: members.len() as u64,
            lines_a_command: lines as f64 / commands as f64,
            variation: variation(busiest.values()),
            hour_commands: busiest.values().sum(),
            hour_members: busiest.len() as u64,
            member_hour_max: hours.values().flat_map(HashMap::values).max().copied().unwrap_or_default(),
            vendor_share: vendors.values().max().copied().unwrap_or_default() as f64 / (lines as f64).max(1.0),
            vendors: vendors.len() as u64,
        })
    }

    /// The load of the fullest partition divided by the mean, at this rate and number of partitions. Assumes that the shop
    /// grows by members of the same behaviour. Members are hashed to partitions, so a partition's load is normally
    /// distributed.
    pub(crate) fn imbalance(&self, rate: f64, partitions: f64) -> f64 {
        let members = self.hour_members as f64 * rate * 3_600.0 / self.hour_commands as f64;
        let deviation = ((1.0 + self.variation * self.variation) * partitions / members.max(1.0)).sqrt();
        1.0 + deviation * (2.0 * partitions.max(2.0).ln()).sqrt()
    }
}

fn count<K: Hash + Eq + for<'a> From<&'a str>>(counts: &mut HashMap<K, u64>, name: &str) {
    *counts.entry(name.into()).or_default() += 1;
}

fn variation<'a>(values: impl Iterator<Item = &'a u64> + Clone) -> f64 {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().sum::<u64>() as f64 / count;
    let variance = values.map(|value| (*value as f64 - mean).powi(2)).sum::<f64>() / count;
    variance.sqrt() / mean.max(f64::EPSILON)
}

/// Prints the skew of a file.
pub(crate) fn print(args: &SkewArgs) -> anyhow::Result<()> {
    let skew = Skew::read(&args.data)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{} commands of {} members, {:.2} purchases a command",
        skew.commands, skew.members, skew.lines_a_command
    )?;
    writeln!(
        out,
        "busiest hour: {} commands of {} members; standard deviation of a member's {:.2} of the mean",
        skew.hour_commands, skew.hour_members, skew.variation
    )?;
    writeln!(out, "busiest member: {} commands in an hour", skew.member_hour_max)?;
    writeln!(out, "largest of {} vendors: {:.1} % of the purchases", skew.vendors, skew.vendor_share * 100.0)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_members_even_out_the_partitions() {
        assert!(variation([4, 4, 4].iter()) < f64::EPSILON);
        let skew = Skew { hour_commands: 3_600, hour_members: 100, variation: 1.0, ..Skew::default() };
        assert!(skew.imbalance(1e6, 48.0) < skew.imbalance(1e3, 48.0));
    }
}
