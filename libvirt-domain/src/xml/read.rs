use super::{Element, Node, DEPTH_MAX, DOCUMENT_BYTES_MAX};
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{escape, Reader, XmlVersion};
use rblocksync::error::{Error, Kind, Result};

impl Element {
    /// Reads a document. Refuses document types, entities, what is too long or too deep, and whatever is not XML;
    /// comments and processing instructions are dropped. `what` names the document in errors.
    pub fn parse(what: &str, text: &str) -> Result<Element> {
        let odd = |why: String| {
            Error::new(
                Kind::Protocol,
                format!("cannot understand the XML of {what}: {why}"),
            )
        };
        if text.len() > DOCUMENT_BYTES_MAX {
            return Err(odd(format!(
                "it has {} bytes, more than {DOCUMENT_BYTES_MAX}",
                text.len()
            )));
        }
        tree(text).map_err(odd)
    }
}

fn tree(text: &str) -> std::result::Result<Element, String> {
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    loop {
        let event = reader.read_event().map_err(|e| e.to_string())?;
        match event {
            Event::Start(start) => {
                if open.len() >= DEPTH_MAX {
                    return Err(format!("it is nested deeper than {DEPTH_MAX}"));
                }
                open.push(element(&start)?);
            }
            Event::Empty(start) => {
                let done = element(&start)?;
                close(done, &mut open, &mut root)?;
            }
            Event::End(_) => {
                let mut done = open.pop().ok_or("an element ends that has not begun")?;
                tidy(&mut done);
                close(done, &mut open, &mut root)?;
            }
            Event::Text(t) => say(&mut open, &t.xml10_content())?,
            Event::CData(t) => say(&mut open, &t.xml10_content())?,
            Event::GeneralRef(name) => say(&mut open, &resolved(&name)?)?,
            Event::DocType(_) => return Err("it has a document type".into()),
            Event::Decl(_) | Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    match open.last() {
        Some(element) => Err(format!("<{}> does not end", element.name)),
        None => root.ok_or_else(|| "there is no element".into()),
    }
}

fn element(start: &BytesStart) -> std::result::Result<Element, String> {
    let mut element = Element::new(start.name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let value = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| e.to_string())?;
        let name = attribute.key.as_ref().to_owned();
        element.attributes.push((name, value.into_owned()));
    }
    Ok(element)
}

fn close(
    done: Element,
    open: &mut [Element],
    root: &mut Option<Element>,
) -> std::result::Result<(), String> {
    match open.last_mut() {
        Some(parent) => parent.push(done),
        None if root.is_none() => *root = Some(done),
        None => return Err(format!("<{}> is a second root", done.name)),
    }
    Ok(())
}

fn say(open: &mut [Element], text: &str) -> std::result::Result<(), String> {
    let Some(element) = open.last_mut() else {
        return match text.trim().is_empty() {
            true => Ok(()),
            false => Err("there is text outside of any element".into()),
        };
    };
    match element.children.last_mut() {
        Some(Node::Text(before)) => before.push_str(text),
        _ => element.children.push(Node::Text(text.to_owned())),
    }
    Ok(())
}

/// White space between elements is layout, not text.
fn tidy(element: &mut Element) {
    let is_blank = |node: &Node| matches!(node, Node::Text(t) if t.trim().is_empty());
    if element.elements().next().is_some() {
        element.children.retain(|node| !is_blank(node));
    }
}

fn resolved(name: &BytesRef) -> std::result::Result<String, String> {
    if let Some(character) = name.resolve_char_ref().map_err(|e| e.to_string())? {
        return Ok(character.to_string());
    }
    let content = name.xml10_content();
    escape::resolve_predefined_entity(&content)
        .map(str::to_owned)
        .ok_or_else(|| format!("it uses the entity {content:?}"))
}
