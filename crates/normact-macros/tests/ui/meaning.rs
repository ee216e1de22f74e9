use normact_macros::layer;

layer! {
    Shadowed {
        let x = 2
        x
    }
}

layer! {
    pub NoInput { gamma + beta }
}

layer! {
    BadGroups { x / std[group(0)](x) }
}

layer! {
    layer wide(x, momentum = 3) { x / std[batch](x) }
}

fn main() {}
