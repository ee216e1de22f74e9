//! Labelled images to train on: the handwritten digits that ship with the program, or CIFAR-10 from a
//! folder.
//!
//! Pixels stay bytes until a batch is made; [`Dataset::batch`] augments and normalizes them. What an
//! epoch looks like is a function of the seed and the epoch's number alone ([`Dataset::epoch`]), so
//! a run that was interrupted sees the same images in the same order without saving a generator.

pub mod cifar10;
pub mod digits;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Images of one size with their labels, in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// What people call it: `digits`, `cifar10`.
    pub name: &'static str,
    /// What one image looks like.
    pub shape: ImageShape,
    /// Number of classes; labels are below it.
    pub classes: usize,
    /// How images are varied while training.
    pub augmentation: Augmentation,
    /// Images to train on.
    pub train: Split,
    /// Images kept aside to measure with.
    pub held_out: Split,
    normalization: Vec<Normalization>,
}

/// The size of one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageShape {
    /// 1 for grey, 3 for red, green and blue.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageShape {
    /// Bytes of one image.
    pub const fn pixels(self) -> usize {
        self.channels * self.height * self.width
    }
}

/// Images and their labels, image after image, each channel by channel and row by row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Split {
    /// All pixels, [`ImageShape::pixels`] for each image.
    pub pixels: Vec<u8>,
    /// One label for each image.
    pub labels: Vec<u8>,
}

impl Split {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Appends a record of one label and its pixels.
    fn push(&mut self, record: &[u8]) {
        self.labels.push(record[0]);
        self.pixels.extend_from_slice(&record[1..]);
    }
}

/// How far images are varied while training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Augmentation {
    /// Largest shift in pixels, along either direction; what comes in from outside is 0.
    pub shift: usize,
    /// Whether half of the images are mirrored left to right.
    pub mirror: bool,
}

/// One image as an epoch shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Position in its [`Split`].
    pub index: usize,
    /// Rows the image moves down.
    pub down: isize,
    /// Columns the image moves right.
    pub right: isize,
    /// Mirrored left to right before it moves.
    pub mirrored: bool,
}

impl Sample {
    /// The image as it is.
    pub fn plain(index: usize) -> Self {
        Self { index, down: 0, right: 0, mirrored: false }
    }
}

/// Maps a channel's bytes to mean 0 and variance 1 over the images to train on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Normalization {
    mean: f32,
    scale: f32,
}

impl Dataset {
    fn new(
        name: &'static str,
        shape: ImageShape,
        classes: usize,
        augmentation: Augmentation,
        train: Split,
        held_out: Split,
    ) -> Self {
        let normalization = normalize(shape, &train);
        Self { name, shape, classes, augmentation, train, held_out, normalization }
    }

    /// The images to train on in the order and form that epoch number `epoch` shows them.
    pub fn epoch(&self, seed: u64, epoch: usize) -> Vec<Sample> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        // Stream 0 is left to whoever draws the initial weights.
        generator.set_stream(epoch as u64 + 1);

        let mut order: Vec<usize> = (0..self.train.len()).collect();
        order.shuffle(&mut generator);

        let Augmentation { shift, mirror } = self.augmentation;
        let reach = -(shift as i32)..=shift as i32;
        order
            .into_iter()
            .map(|index| Sample {
                index,
                down: generator.random_range(reach.clone()) as isize,
                right: generator.random_range(reach.clone()) as isize,
                mirrored: mirror && generator.random::<bool>(),
            })
            .collect()
    }

    /// Images `[samples, channels, height, width]` of `split`, and their labels, on `device`.
    pub fn batch(&self, split: &Split, samples: &[Sample], device: &Device) -> (Tensor<4>, Tensor<1, Int>) {
        let ImageShape { channels, height, width } = self.shape;
        let mut values = Vec::with_capacity(samples.len() * self.shape.pixels());
        for sample in samples {
            let start = sample.index * self.shape.pixels();
            let image = &split.pixels[start..start + self.shape.pixels()];
            for (plane, normalization) in image.chunks_exact(height * width).zip(&self.normalization) {
                let pixels = moved(plane, height, width, sample);
                values.extend(pixels.map(|pixel| (f32::from(pixel) - normalization.mean) * normalization.scale));
            }
        }
        let images = Tensor::from_data(TensorData::new(values, [samples.len(), channels, height, width]), device);
        (images, labels(split, samples, device))
    }

    /// As [`Dataset::batch`], of the top left `window` by `window` pixels of each image, scaled to `side` by
    /// `side`. A pixel of the result is the mean of the part of the image under it.
    pub fn cropped_batch(
        &self,
        split: &Split,
        samples: &[Sample],
        window: usize,
        side: usize,
        device: &Device,
    ) -> (Tensor<4>, Tensor<1, Int>) {
        let ImageShape { channels, height, width } = self.shape;
        let shares = shares(window, side);
        let mut values = Vec::with_capacity(samples.len() * channels * side * side);
        for sample in samples {
            let start = sample.index * self.shape.pixels();
            let image = &split.pixels[start..start + self.shape.pixels()];
            for (plane, normalization) in image.chunks_exact(height * width).zip(&self.normalization) {
                let pixels: Vec<u8> = moved(plane, height, width, sample).collect();
                for rows in &shares {
                    values.extend(shares.iter().map(|columns| {
                        let row_mean = |row: usize| mean(columns, |column| f32::from(pixels[row * width + column]));
                        (mean(rows, row_mean) - normalization.mean) * normalization.scale
                    }));
                }
            }
        }
        (
            Tensor::from_data(TensorData::new(values, [samples.len(), channels, side, side]), device),
            labels(split, samples, device),
        )
    }

    /// A number that differs between data sets that differ: FNV-1a, over words of eight bytes as it is
    /// computed for every checkpoint.
    pub fn fingerprint(&self) -> u64 {
        let parts = [&self.train.labels, &self.train.pixels, &self.held_out.labels, &self.held_out.pixels];
        parts.into_iter().flat_map(|part| part.chunks(8)).fold(0xcbf2_9ce4_8422_2325, |hash, bytes| {
            let word = bytes.iter().fold(bytes.len() as u64, |word, byte| (word << 8) ^ u64::from(*byte));
            (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

fn labels(split: &Split, samples: &[Sample], device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i32> = samples.iter().map(|sample| i32::from(split.labels[sample.index])).collect();
    Tensor::from_data(TensorData::new(labels, [samples.len()]), device)
}

/// For each of `side` equal parts of `window` pixels in a row, the pixels it covers and how much of it
/// each of them is.
fn shares(window: usize, side: usize) -> Vec<Vec<(usize, f32)>> {
    // Positions in units of 1 / (window * side), so that they are whole numbers.
    (0..side)
        .map(|part| {
            let (start, end) = (part * window, (part + 1) * window);
            (start / side..end.div_ceil(side))
                .map(|pixel| {
                    let covered = end.min((pixel + 1) * side) - start.max(pixel * side);
                    (pixel, covered as f32 / window as f32)
                })
                .collect()
        })
        .collect()
}

fn mean(shares: &[(usize, f32)], value: impl Fn(usize) -> f32) -> f32 {
    shares.iter().map(|(index, share)| share * value(*index)).sum()
}

/// The pixels of one channel after the sample's mirroring and shift.
fn moved<'a>(plane: &'a [u8], height: usize, width: usize, sample: &Sample) -> impl Iterator<Item = u8> + use<'a> {
    let Sample { down, right, mirrored, .. } = *sample;
    (0..height).flat_map(move |row| {
        (0..width).map(move |column| {
            let (Some(row), Some(column)) = (row.checked_add_signed(-down), column.checked_add_signed(-right)) else {
                return 0;
            };
            if row >= height || column >= width {
                return 0;
            }
            let column = if mirrored { width - 1 - column } else { column };
            plane[row * width + column]
        })
    })
}

/// Mean and spread of each channel. The sums are whole numbers, so their order does not matter.
fn normalize(shape: ImageShape, train: &Split) -> Vec<Normalization> {
    let plane = shape.height * shape.width;
    let mut sums = vec![(0_u64, 0_u64); shape.channels];
    for image in train.pixels.chunks_exact(shape.pixels()) {
        for (pixels, (sum, squares)) in image.chunks_exact(plane).zip(&mut sums) {
            for pixel in pixels {
                let pixel = u64::from(*pixel);
                *sum += pixel;
                *squares += pixel * pixel;
            }
        }
    }
    let count = (train.len() * plane) as f64;
    sums.into_iter()
        .map(|(sum, squares)| {
            let mean = sum as f64 / count;
            let variance = squares as f64 / count - mean * mean;
            // A channel that is the same everywhere is only centred.
            let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
            Normalization { mean: mean as f32, scale: (1.0 / deviation) as f32 }
        })
        .collect()
}
