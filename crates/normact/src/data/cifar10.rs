//! CIFAR-10 in its binary form: `data_batch_1.bin` to `data_batch_5.bin` to train on and
//! `test_batch.bin` held out.
//!
//! A file is a row of records of 3,073 bytes: a label from 0 to 9, then 1,024 red, 1,024 green and
//! 1,024 blue pixels, row by row. The original files hold 10,000 records each; shorter ones are read
//! too, so that a part of the data can be tried.

use std::path::Path;

use super::{Augmentation, Dataset, ImageShape, Split};
use crate::{Failure, files};

const SHAPE: ImageShape = ImageShape { channels: 3, height: 32, width: 32 };
const RECORD: usize = 1 + SHAPE.pixels();
const CLASSES: u8 = 10;

const TRAIN_FILES: [&str; 5] =
    ["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"];
const HELD_OUT_FILE: &str = "test_batch.bin";

/// More than ten times the size of an original file.
const LIMIT: u64 = 400_000_000;

/// Reads the six files in `folder`.
///
/// # Errors
/// Where a file is missing, is empty, ends within a record or holds a label that is not 0 to 9.
pub fn load(folder: &Path) -> Result<Dataset, Failure> {
    if !folder.is_dir() {
        return Err(Failure::new(format!("{} is not a folder", folder.display()))
            .help("give the folder that holds CIFAR-10's data_batch_1.bin to data_batch_5.bin and test_batch.bin"));
    }
    let mut train = Split::default();
    for name in TRAIN_FILES {
        read_into(&mut train, folder, name)?;
    }
    let mut held_out = Split::default();
    read_into(&mut held_out, folder, HELD_OUT_FILE)?;

    let augmentation = Augmentation { shift: 4, mirror: true };
    Ok(Dataset::new("cifar10", SHAPE, usize::from(CLASSES), augmentation, train, held_out))
}

fn read_into(split: &mut Split, folder: &Path, name: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    if !path.exists() {
        return Err(Failure::new(format!("{} is missing", path.display())).help(where_it_may_be(folder, name)));
    }
    let bytes = files::read(&path, LIMIT)?;
    let whole = bytes.len() / RECORD;
    if bytes.is_empty() || bytes.len() % RECORD != 0 {
        let found = match bytes.len() % RECORD {
            0 => "is empty".to_owned(),
            rest => format!("ends after {rest} bytes of record {}", whole + 1),
        };
        return Err(Failure::new(format!("{} {found}; a record has {RECORD} bytes", path.display())).help(
            "the file is cut short or is not CIFAR-10's binary form; fetch and unpack cifar-10-binary.tar.gz again",
        ));
    }
    for (number, record) in bytes.chunks_exact(RECORD).enumerate() {
        if record[0] >= CLASSES {
            return Err(Failure::new(format!(
                "{}: record {} has the label {}, but CIFAR-10's labels are 0 to 9",
                path.display(),
                number + 1,
                record[0]
            ))
            .help("the file is damaged or is not CIFAR-10 (CIFAR-100 has records of another size)"));
        }
        split.push(record);
    }
    Ok(())
}

/// Guesses at what was given instead of the folder with the binary files.
fn where_it_may_be(folder: &Path, name: &str) -> String {
    let inner = folder.join("cifar-10-batches-bin");
    if inner.is_dir() {
        return format!("did you mean {}?", inner.display());
    }
    if folder.join(name.trim_end_matches(".bin")).exists() {
        return "this is CIFAR-10's Python version; the binary version (cifar-10-binary.tar.gz) is needed".to_owned();
    }
    "the folder needs data_batch_1.bin to data_batch_5.bin and test_batch.bin, from cifar-10-binary.tar.gz".to_owned()
}
