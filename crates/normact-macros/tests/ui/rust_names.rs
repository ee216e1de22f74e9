use normact_macros::layer;

layer! {
    pub Derived { param device = 1  x * device }
}

layer! {
    pub Tensor { x * sigmoid(x) }
}

layer! {
    pub layer option(x) { x * sigmoid(x) }
}

fn main() {}
