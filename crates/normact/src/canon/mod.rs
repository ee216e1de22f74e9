//! `normact canon`: a key for each line of a stream of layers.
//!
//! Lines are read in batches, batches are worked on in parallel, and results come out in the order of
//! the input, one line for each line; what is in flight is bounded, so that memory does not grow with
//! the stream. A line that cannot be read becomes an error record and never stops the stream.
//!
//! ```text
//! lines --batches--> pipeline of workers --records--> output
//! ```

mod lines;
mod output;
mod pipeline;
mod record;

pub(crate) use lines::{Batch, Batches, Lines};
pub(crate) use output::Resumed;
pub(crate) use pipeline::Pipeline;
pub(crate) use record::{Counts, Worker};
