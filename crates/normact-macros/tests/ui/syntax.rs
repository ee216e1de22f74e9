use normact_macros::layer;

layer! {
    Operators { x * / 2 }
}

layer! {
    layer unfinished(x) {
        let y = (x +)
        y * 2
    }
}

layer! {
    Empty {}
}

layer! {
    Text { x * "two" }
}

fn main() {}
