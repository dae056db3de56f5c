//! Tests of the audit: a correct run has no findings, and each defect that is put into it is reported by its kind.

mod defects;
mod discards;
mod outcomes;
mod parked_rows;
mod rules;
mod run;
mod since;
mod skips;
