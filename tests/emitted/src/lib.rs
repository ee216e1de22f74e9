//! Emitted layers as the modules of a crate, behind one interface for the tests.
//!
//! The build script emits the built-in layers and random ones; what they compute is compared in
//! `tests/emitted.rs` with the module that normact makes of the same layer at run time.

use std::path::Path;

use burn::module::{Module, Param, RunningState};
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{Device, Tensor};

/// An emitted layer.
pub trait Emitted {
    /// Applies it to an input of so many sizes, given and returned in one dimension.
    fn forward(&self, x: Tensor<1>, dims: &[usize]) -> Tensor<1>;
    /// Its parameters.
    fn params(&mut self) -> Vec<&mut Param<Tensor<1>>>;
    /// Its running averages.
    fn running(&self) -> Vec<&RunningState<Tensor<1>>>;
    /// Freezes a layer with running averages, or the opposite.
    fn set_training(&mut self, enabled: bool);
}

/// What Burn does with any module.
pub trait Stored: Emitted {
    /// Loads a safetensors file.
    ///
    /// # Errors
    /// The file does not fit.
    fn load_safetensors(&mut self, file: &Path) -> Result<(), String>;
    /// Loads a file of Burn's own format.
    ///
    /// # Errors
    /// The file does not fit.
    fn load_burnpack(self: Box<Self>, file: &Path) -> Result<Box<dyn Stored>, String>;
    /// Saves a safetensors file.
    ///
    /// # Errors
    /// The file cannot be written.
    fn save_safetensors(&self, file: &Path) -> Result<(), String>;
    /// The layer without training: its values as they are, on the device itself.
    fn validated(&self) -> Box<dyn Stored>;
    /// The layer frozen.
    fn frozen(&self) -> Box<dyn Stored>;
}

/// Makes a layer for so many channels.
pub type Init<T> = fn(usize, &Device) -> Box<T>;

/// Implements [`Emitted`] and makes the list of all, a line each: the module, the struct, its
/// configuration, the rank of inputs, the parameters, the running averages and the flag.
macro_rules! emitted {
    ($($module:ident $Layer:ident $Config:ident $rank:literal
        [$($param:ident)*] [$($running:ident)*] [$($flag:ident)?];)*) => {
        $(impl Emitted for $module::$Layer {
            fn forward(&self, x: Tensor<1>, dims: &[usize]) -> Tensor<1> {
                let dims: [usize; $rank] = dims.try_into().expect("the rank is the one of the list");
                let y = self.forward(x.reshape(dims));
                let elements = y.shape().num_elements();
                y.reshape([elements])
            }

            fn params(&mut self) -> Vec<&mut Param<Tensor<1>>> {
                vec![$(&mut self.$param),*]
            }

            fn running(&self) -> Vec<&RunningState<Tensor<1>>> {
                vec![$(&self.$running),*]
            }

            fn set_training(&mut self, _enabled: bool) {
                $(self.$flag = Param::from_bool(_enabled);)?
            }
        })*

        /// Every layer.
        pub fn all() -> Vec<(&'static str, Init<dyn Emitted>)> {
            vec![$((stringify!($module), |channels, device| {
                Box::new($module::$Config::new(channels).init(device))
            })),*]
        }
    };
}

/// Implements [`Stored`] and makes the list of the layers that have it.
macro_rules! stored {
    ($($module:ident $Layer:ident $Config:ident;)*) => {
        $(impl Stored for $module::$Layer {
            fn load_safetensors(&mut self, file: &Path) -> Result<(), String> {
                self.load_from(&mut SafetensorsStore::from_file(file)).map(drop).map_err(|error| error.to_string())
            }

            fn load_burnpack(self: Box<Self>, file: &Path) -> Result<Box<dyn Stored>, String> {
                let loaded = self.try_load_file(file).map_err(|error| error.to_string())?;
                Ok(Box::new(loaded))
            }

            fn save_safetensors(&self, file: &Path) -> Result<(), String> {
                self.save_into(&mut SafetensorsStore::from_file(file)).map_err(|error| error.to_string())
            }

            fn validated(&self) -> Box<dyn Stored> {
                Box::new(self.valid())
            }

            fn frozen(&self) -> Box<dyn Stored> {
                Box::new(self.clone().freeze())
            }
        })*

        /// The built-in layers.
        pub fn built_in() -> Vec<(&'static str, Init<dyn Stored>)> {
            vec![$((stringify!($module), |channels, device| {
                Box::new($module::$Config::new(channels).init(device))
            })),*]
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
