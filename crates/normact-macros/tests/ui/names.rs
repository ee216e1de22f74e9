use normact_macros::layer;

layer! {
    pub Misspelt { x * sigmoyd(v * x) / std[grup](x) * gama + beta }
}

layer! {
    TwoMistakes(x, eps = 1e-3) {
        param alpha: scaler = 0.5

        let z = alpha * x
        z * undefined_name +
            max(z, 1, 2)
    }
}

fn main() {}
