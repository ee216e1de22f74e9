//! The drawing for Mermaid, which GitHub and many editors draw within Markdown.

use normact_ir::Layer;

use crate::drawing::{BLUE, Drawing, GRAY, Role};

/// A `flowchart`: statistics are boxes, parameters hexagons, constants dashed, the main path from the input to
/// the result thick. A parameter or constant is drawn at each use; `÷` leads to a divisor, `−` to what is
/// subtracted.
pub fn mermaid(layer: &Layer) -> String {
    let drawing = Drawing::new(layer);
    let mut text = format!("---\ntitle: \"{}\"\n---\nflowchart TB\n", escaped(&drawing.name));
    let mut main_links = vec![];
    let mut links = 0;
    for node in &drawing.nodes {
        let lines: Vec<String> = node.lines.iter().map(|line| escaped(line)).collect();
        let (open, close) = brackets(node.role);
        text.push_str(&format!("    {}{open}\"{}\"{close}:::{}\n", node.key, lines.join("<br/>"), node.role.name()));
        for link in &node.links {
            let arrow = if link.main { "==>" } else { "-->" };
            let sign = if link.sign.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(link.sign)) };
            text.push_str(&format!("    {} {arrow}{sign} {}\n", drawing.nodes[link.from].key, node.key));
            if link.main {
                main_links.push(links.to_string());
            }
            links += 1;
        }
    }
    for role in Role::ALL.into_iter().filter(|role| drawing.nodes.iter().any(|node| node.role == *role)) {
        let (fill, outline) = role.colors();
        let dashes = if role == Role::Constant { ",stroke-dasharray:3 2" } else { "" };
        text.push_str(&format!("    classDef {} fill:{fill},stroke:{outline},color:#000{dashes}\n", role.name()));
    }
    text.push_str(&format!("    linkStyle default stroke:{GRAY}\n"));
    if !main_links.is_empty() {
        text.push_str(&format!("    linkStyle {} stroke:{BLUE},stroke-width:3px\n", main_links.join(",")));
    }
    text
}

fn brackets(role: Role) -> (&'static str, &'static str) {
    match role {
        Role::End => ("([", "])"),
        Role::Statistic | Role::Constant => ("[", "]"),
        Role::Param => ("{{", "}}"),
        Role::Operation => ("((", "))"),
    }
}

/// A label, or a quoted string of the title: what could be read as Mermaid, Markdown, HTML or YAML is
/// written by its number. Underscores and hyphens within words are nothing of the kind.
fn escaped(text: &str) -> String {
    let words = text.starts_with(|first: char| first.is_alphanumeric()) && !text.ends_with('_');
    let mut escaped = String::new();
    for char in text.chars() {
        let plain =
            char.is_alphanumeric() || " .,()[]".contains(char) || ("_-".contains(char) && words) || !char.is_ascii();
        if plain && !char.is_control() {
            escaped.push(char);
        } else {
            escaped.push_str(&format!("#{};", u32::from(char)));
        }
    }
    escaped
}
