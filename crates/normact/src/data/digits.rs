//! The handwritten digits that ship with the program: 1,797 real 8x8 images, from UCI's *Optical
//! Recognition of Handwritten Digits* (CC BY 4.0; see `data/README.md` in this crate).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Augmentation, Dataset, ImageShape, Split};

const SHAPE: ImageShape = ImageShape { channels: 1, height: 8, width: 8 };
const RECORD: usize = 1 + SHAPE.pixels();
const CLASSES: usize = 10;

static RECORDS: &[u8] = include_bytes!("../../data/digits.bin");
const _: () = assert!(include_bytes!("../../data/digits.bin").len().is_multiple_of(RECORD));

/// Decides which images are held out. It is fixed, and apart from the seed of a run, so that results
/// of different runs are about the same images.
const SPLIT_SEED: u64 = 8;

/// The digits; one in five of each class is held out.
pub fn load() -> Dataset {
    let mut classes: Vec<Vec<&[u8]>> = vec![Vec::new(); CLASSES];
    for record in RECORDS.chunks_exact(RECORD) {
        classes[usize::from(record[0])].push(record);
    }

    let mut generator = ChaCha8Rng::seed_from_u64(SPLIT_SEED);
    let (mut train, mut held_out) = (Split::default(), Split::default());
    for mut records in classes {
        records.shuffle(&mut generator);
        let (aside, rest) = records.split_at(records.len() / 5);
        aside.iter().for_each(|record| held_out.push(record));
        rest.iter().for_each(|record| train.push(record));
    }
    Dataset::new("digits", SHAPE, CLASSES, Augmentation::default(), train, held_out)
}
