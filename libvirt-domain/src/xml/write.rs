use super::{Element, Node};
use quick_xml::escape::escape;
use std::fmt;

/// As libvirt writes it: two spaces for each level.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write(self, 0, f)
    }
}

fn write(element: &Element, depth: usize, f: &mut fmt::Formatter) -> fmt::Result {
    let indent = depth * 2;
    write!(f, "{:indent$}<{}", "", element.name)?;
    for (name, value) in &element.attributes {
        write!(f, " {name}='{}'", attribute(value))?;
    }
    if element.children.is_empty() {
        return writeln!(f, "/>");
    }
    let is_text = |node: &Node| matches!(node, Node::Text(_));
    if element.children.iter().any(is_text) {
        write!(f, ">")?;
        inline(element, f)?;
        return writeln!(f, "</{}>", element.name);
    }
    writeln!(f, ">")?;
    for child in element.elements() {
        write(child, depth + 1, f)?;
    }
    writeln!(f, "{:indent$}</{}>", "", element.name)
}

/// Where there is text, white space would become part of it.
fn inline(element: &Element, f: &mut fmt::Formatter) -> fmt::Result {
    for node in &element.children {
        match node {
            Node::Text(text) => write!(f, "{}", text_of(text))?,
            Node::Element(child) => {
                write!(f, "<{}", child.name)?;
                for (name, value) in &child.attributes {
                    write!(f, " {name}='{}'", attribute(value))?;
                }
                write!(f, ">")?;
                inline(child, f)?;
                write!(f, "</{}>", child.name)?;
            }
        }
    }
    Ok(())
}

fn text_of(text: &str) -> String {
    escape(text).replace('\r', "&#13;")
}

/// Line breaks and tabs in an attribute would be read as spaces.
fn attribute(value: &str) -> String {
    text_of(value).replace('\n', "&#10;").replace('\t', "&#9;")
}
