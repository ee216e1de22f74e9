//! A formula as a layer of your own Burn model, trained with Burn's optimizer.
//!
//!     cargo run --release --example own_model

use burn::module::Module;
use burn::nn::{Linear, LinearConfig, loss::MseLoss, loss::Reduction};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use normact::NormAct;

// The formula, and where it goes: these lines are all there is to it.
const FORMULA: &str = "
layer gated(x, eps = 1e-3) {
    param v     = 1
    param gamma = 1
    param beta  = 0
    (x - mean[batch](x)) / std[batch](x) * sigmoid(v * x) * gamma + beta
}";

#[derive(Module, Debug)]
struct Net {
    first: Linear,
    norm: NormAct,
    last: Linear,
}

impl Net {
    fn new(device: &Device) -> Result<Self, normact::Failure> {
        let norm = normact::module(FORMULA, 32, device)?;
        Ok(Self { first: LinearConfig::new(2, 32).init(device), norm, last: LinearConfig::new(32, 1).init(device) })
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.last.forward(self.norm.forward(self.first.forward(x)))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let mut net = Net::new(&device)?;
    let mut optimizer = AdamConfig::new().init();
    println!("{net}");

    // Learn the product of two numbers.
    for step in 0..=400 {
        let x = Tensor::<2>::random([128, 2], Distribution::Uniform(-1.0, 1.0), &device);
        let product = x.clone().prod_dim(1);
        let loss = MseLoss::new().forward(net.forward(x), product, Reduction::Mean);
        if step % 100 == 0 {
            println!("step {step:3}  loss {:.5}", loss.clone().into_scalar::<f32>());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &net);
        net = optimizer.step(0.005, net, gradients);
    }

    // In evaluation the running statistics of the formula are used.
    let net = net.valid();
    let half = Tensor::<2>::from_data([[0.5, 0.5], [-0.5, 0.5]], &Device::flex());
    println!("0.5 * 0.5 and -0.5 * 0.5 are about {:?}", net.forward(half).try_to_vec_as::<f32>()?);
    Ok(())
}
