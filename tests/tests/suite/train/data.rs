//! What there is to train on.

use std::fs;
use std::path::Path;

use normact::data::{Sample, cifar10, digits};
use tempfile::TempDir;

use super::cpu;

#[test]
fn digits_are_whole_and_their_split_is_fixed() {
    let dataset = digits::load();
    assert_eq!((dataset.train.len(), dataset.held_out.len()), (1442, 355));
    assert_eq!(dataset.train.pixels.len(), 1442 * 64);
    assert!(dataset.train.pixels.iter().chain(&dataset.held_out.pixels).all(|pixel| *pixel <= 16));
    for digit in 0..10 {
        let held_out = dataset.held_out.labels.iter().filter(|label| **label == digit).count();
        let all = held_out + dataset.train.labels.iter().filter(|label| **label == digit).count();
        assert_eq!(held_out, all / 5, "of the digit {digit}");
    }
    assert_eq!(dataset.fingerprint(), digits::load().fingerprint());
}

#[test]
fn an_epoch_shows_every_image_once_in_an_order_of_its_own() {
    let dataset = digits::load();
    let order = |seed, epoch| dataset.epoch(seed, epoch).iter().map(|sample| sample.index).collect::<Vec<_>>();
    let mut sorted = order(3, 5);
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1442).collect::<Vec<_>>());
    assert_eq!(order(3, 5), order(3, 5));
    assert_ne!(order(3, 5), order(3, 6));
    assert_ne!(order(3, 5), order(4, 5));
}

/// A folder in CIFAR-10's form with `records` records in each file. Image `i` of a file has the label
/// `i % 10`, and its pixels count up from `i` through the red, green and blue planes.
pub(crate) fn cifar10_folder(records: usize) -> TempDir {
    let folder = TempDir::new().unwrap();
    let names = (1..=5).map(|batch| format!("data_batch_{batch}.bin")).chain(["test_batch.bin".to_owned()]);
    for name in names {
        let mut bytes = Vec::new();
        for record in 0..records {
            bytes.push((record % 10) as u8);
            bytes.extend((0..3072).map(|pixel| (record + pixel / 7) as u8));
        }
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

#[test]
fn cifar10_is_read_from_its_binary_form() {
    let folder = cifar10_folder(12);
    let dataset = cifar10::load(folder.path()).unwrap();
    assert_eq!((dataset.train.len(), dataset.held_out.len()), (60, 12));
    assert_eq!(dataset.train.labels[..13], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 0]);

    let samples: Vec<Sample> = (0..60).map(Sample::plain).collect();
    let (images, labels) = dataset.batch(&dataset.train, &samples, &cpu().device);
    assert_eq!((images.dims(), labels.dims()), ([60, 3, 32, 32], [60]));
    let values: Vec<f32> = images.try_into_vec_as().unwrap();
    for channel in 0..3 {
        let plane = |image: usize| &values[(image * 3 + channel) * 1024..][..1024];
        let all = || (0..60).flat_map(plane).map(|value| f64::from(*value));
        let (mean, square) = (all().sum::<f64>() / 61440.0, all().map(|value| value * value).sum::<f64>() / 61440.0);
        assert!(mean.abs() < 1e-4 && (square - 1.0).abs() < 1e-4, "channel {channel}: {mean}, {square}");
    }
}

#[test]
fn augmentation_mirrors_then_moves_and_fills_with_zero() {
    let dataset = digits::load();
    let image = &dataset.train.pixels[..64];
    let values =
        |sample| -> Vec<f32> { dataset.batch(&dataset.train, &[sample], &cpu().device).0.try_into_vec_as().unwrap() };
    // What the bytes become; 0 is the empty background of the first pixel.
    let plain = values(Sample::plain(0));
    let empty = plain[image.iter().position(|pixel| *pixel == 0).unwrap()];
    let moved = values(Sample { index: 0, down: 1, right: -2, mirrored: true });
    for row in 0..8 {
        for column in 0..8 {
            let expected = match (row, column) {
                (0, _) | (_, 6..) => empty,
                _ => plain[(row - 1) * 8 + 7 - (column + 2)],
            };
            assert_eq!(moved[row * 8 + column], expected, "row {row}, column {column}");
        }
    }
}

#[test]
fn unusable_cifar10_folders_are_refused_by_name_and_place() {
    let check = |spoil: &dyn Fn(&Path), expected: &str| {
        let folder = cifar10_folder(3);
        spoil(folder.path());
        let message = cifar10::load(folder.path()).unwrap_err().to_string();
        assert_eq!(message.replace(&folder.path().display().to_string(), "DIR"), expected);
    };
    let cut = |path: &Path, length: usize| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..length]).unwrap();
    };
    check(
        &|folder| fs::remove_file(folder.join("data_batch_4.bin")).unwrap(),
        "error: DIR/data_batch_4.bin is missing\n  help: the folder needs data_batch_1.bin to data_batch_5.bin and \
         test_batch.bin, from cifar-10-binary.tar.gz",
    );
    check(
        &|folder| fs::rename(folder.join("data_batch_1.bin"), folder.join("data_batch_1")).unwrap(),
        "error: DIR/data_batch_1.bin is missing\n  help: this is CIFAR-10's Python version; the binary version \
         (cifar-10-binary.tar.gz) is needed",
    );
    check(
        &|folder| {
            fs::remove_file(folder.join("data_batch_1.bin")).unwrap();
            fs::create_dir(folder.join("cifar-10-batches-bin")).unwrap();
        },
        "error: DIR/data_batch_1.bin is missing\n  help: did you mean DIR/cifar-10-batches-bin?",
    );
    check(
        &|folder| cut(&folder.join("test_batch.bin"), 3073 * 2 + 10),
        "error: DIR/test_batch.bin ends after 10 bytes of record 3; a record has 3073 bytes\n  help: the file is cut short \
         or is not CIFAR-10's binary form; fetch and unpack cifar-10-binary.tar.gz again",
    );
    check(
        &|folder| cut(&folder.join("data_batch_2.bin"), 0),
        "error: DIR/data_batch_2.bin is empty; a record has 3073 bytes\n  help: the file is cut short or is not CIFAR-10's \
         binary form; fetch and unpack cifar-10-binary.tar.gz again",
    );
    check(
        &|folder| {
            let path = folder.join("data_batch_5.bin");
            let mut bytes = fs::read(&path).unwrap();
            bytes[3073] = 17;
            fs::write(&path, bytes).unwrap();
        },
        "error: DIR/data_batch_5.bin: record 2 has the label 17, but CIFAR-10's labels are 0 to 9\n  help: the file is \
         damaged or is not CIFAR-10 (CIFAR-100 has records of another size)",
    );
    let message = cifar10::load(Path::new("no/such/folder")).unwrap_err().to_string();
    assert!(message.starts_with("error: no/such/folder is not a folder\n"), "{message}");
}
