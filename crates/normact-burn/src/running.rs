//! A running average as a buffer of a module.
//!
//! It is what Burn's `RunningState` is, with fewer operations: that one divides every update by the number of
//! threads and moves it to a device, which autodiff records as graphs of their own, in every forward pass. For a
//! small input these cost as much time as the layer, and 3 KB that stay until the next one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use burn::module::{Devices, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};

/// A buffer that forward passes update, also in several threads: its value is then the mean of their updates.
/// Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct RunningAverage {
    id: ParamId,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    value: Tensor<1>,
    /// The last update of each thread that has not gone into the value yet.
    updates: Vec<(ThreadId, Tensor<1>)>,
}

impl State {
    fn bring_up_to_date(&mut self) {
        let count = self.updates.len();
        let updates = self.updates.drain(..).map(|(_, update)| update);
        let sum = updates.reduce(|sum, update| {
            let update = on(update, &sum.device());
            sum + update
        });
        if let Some(sum) = sum {
            self.value = if count == 1 { sum } else { sum.div_scalar(count as f64) };
        }
    }

    fn has_update_of(&self, thread: ThreadId) -> bool {
        self.updates.iter().any(|(of, _)| *of == thread)
    }
}

/// The tensor on a device: where it is there already, nothing is recorded.
pub(crate) fn on(tensor: Tensor<1>, device: &Device) -> Tensor<1> {
    if tensor.device() == *device { tensor } else { tensor.to_device(device) }
}

impl RunningAverage {
    pub(crate) fn new(value: Tensor<1>) -> Self {
        Self::with_id(ParamId::new(), value)
    }

    fn with_id(id: ParamId, value: Tensor<1>) -> Self {
        Self { id, state: Arc::new(Mutex::new(State { value, updates: vec![] })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A tensor is put in its place whole, so what a panic leaves behind is usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value. Where this thread has updated it since, that is the mean of what all threads have found.
    pub(crate) fn value(&self) -> Tensor<1> {
        let mut state = self.state();
        if state.has_update_of(thread::current().id()) {
            state.bring_up_to_date();
        }
        state.value.clone()
    }

    /// The value with the updates of all threads.
    fn latest(&self) -> Tensor<1> {
        let mut state = self.state();
        state.bring_up_to_date();
        state.value.clone()
    }

    /// Gives the value that this thread has found. It has no gradient.
    pub(crate) fn update(&self, value: Tensor<1>) {
        let (thread, mut state) = (thread::current().id(), self.state());
        if state.has_update_of(thread) {
            state.bring_up_to_date();
        }
        state.updates.push((thread, value));
    }

    /// Replaces the value and what threads have found.
    pub(crate) fn set(&self, value: Tensor<1>) {
        let mut state = self.state();
        state.updates.clear();
        state.value = value;
    }

    pub(crate) fn visit(&self, visitor: &mut impl ModuleVisitor) {
        visitor.visit_float(&Param::initialized(self.id, self.latest()));
    }

    pub(crate) fn map(self, mapper: &mut impl ModuleMapper) -> Self {
        let mut state = self.state();
        state.bring_up_to_date();
        let (_, mapped, _) = mapper.map_float(Param::initialized(self.id, state.value.clone())).consume();
        // A buffer is nothing that an optimizer moves, whatever the mapper says.
        state.value = mapped.set_require_grad(false);
        drop(state);
        self
    }

    pub(crate) fn moved_to(self, device: &Device) -> Self {
        let mut state = self.state();
        state.bring_up_to_date();
        state.value = on(state.value.clone(), device);
        drop(state);
        self
    }

    /// The number format of the value.
    pub(crate) fn format(&self) -> DType {
        self.state().value.dtype()
    }

    pub(crate) fn collect_devices(&self, mut devices: Devices) -> Devices {
        let device = self.state().value.device();
        if !devices.contains(&device) {
            devices.push(device);
        }
        devices
    }

    /// A buffer of its own without autodiff.
    pub(crate) fn valid(&self) -> Self {
        Self::with_id(self.id, self.latest().without_autodiff())
    }

    /// A buffer of its own with autodiff.
    pub(crate) fn train(self) -> Self {
        Self::with_id(self.id, Tensor::from_inner(self.latest()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: Tensor<1>) -> Vec<f64> {
        tensor.try_to_vec_as().unwrap()
    }

    #[test]
    fn the_value_is_the_mean_of_what_threads_have_found() {
        let device = Device::flex();
        let running = RunningAverage::new(Tensor::from_data([0.0, 1.0], &device));
        let update = |values: [f32; 2]| running.clone().update(Tensor::from_data(values, &device));
        update([2.0, 3.0]);
        assert_eq!(values(running.value()), [2.0, 3.0]);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                update([6.0, 9.0]);
                update([4.0, 5.0]);
            });
            other.join().unwrap();
        });
        // The second update of a thread makes the first one count, also without the others.
        update([8.0, 1.0]);
        assert_eq!(values(running.value()), [6.0, 3.0]);
        running.set(Tensor::from_data([7.0, 7.0], &device));
        assert_eq!(values(running.valid().value()), [7.0, 7.0]);
        assert_eq!(values(running.value()), [7.0, 7.0]);
    }

    #[test]
    fn a_buffer_with_autodiff_stays_one() {
        let running = RunningAverage::new(Tensor::from_data([1.0], &Device::flex())).train();
        assert!(running.value().device().is_autodiff() && !running.value().is_require_grad());
        assert!(!running.valid().value().device().is_autodiff());
    }
}
