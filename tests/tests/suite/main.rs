//! What users of normact rely on, end to end. One binary, since each links all of Burn.

#![allow(missing_docs)]

mod anchors;
mod canon;
mod cases;
mod cli;
mod deploy;
mod documentation;
mod equality;
mod examples;
mod fitness;
mod hostile;
mod kernels;
mod memory;
mod oracle;
mod search;
mod sizes;
mod spellings;
mod support;
mod train;
