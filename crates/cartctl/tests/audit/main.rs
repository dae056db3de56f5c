//! The audit audited: a correct run has no findings, and every defect that is put into one is found, as what it is.

mod defects;
mod outcomes;
mod rules;
mod run;
