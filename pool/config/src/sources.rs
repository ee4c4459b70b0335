//! The two lower layers: `config.toml` and the environment.

use std::{collections::BTreeMap, fs, io::Read, path::Path};

use crate::{
    Inputs,
    report::{BadValue, Source},
    settings::{Key, Settings, Values},
};

/// Sections that other binaries own: known, so not refused.
const SECTIONS: [&str; 4] = ["agent", "edge", "images", "pager"];

/// Largest `config.toml` that is read, bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

pub(crate) fn read_toml(inputs: &Inputs, path: &Path, bad: &mut Vec<BadValue>) -> Option<String> {
    if let Some(text) = &inputs.toml {
        return Some(text.clone());
    }
    let mut text = String::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text));
    let reason = match read {
        Ok(_) if text.len() as u64 <= CONFIG_BYTES_MAX => return Some(text),
        Ok(_) => format!("at most {CONFIG_BYTES_MAX} bytes"),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => format!("a readable file ({e})"),
    };
    bad.push(file_problem("config.toml", String::new(), path, reason));
    None
}

pub(crate) fn from_file<C: Settings>(text: &str, path: &Path, values: &mut Values) {
    let table = match text.parse::<toml::Table>() {
        Ok(table) => table,
        Err(e) => {
            let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            let reason = format!("TOML (line {line}: {})", e.message());
            values.bad.push(file_problem("config.toml", String::new(), path, reason));
            return;
        }
    };
    for (section, content) in &table {
        let known = section == C::SECTION || SECTIONS.contains(&section.as_str());
        let expected = match (known, content) {
            (false, _) => format!("one of the sections {}", SECTIONS.join(", ")),
            (true, toml::Value::Table(keys)) => {
                if section == C::SECTION {
                    section_keys::<C>(keys, path, values);
                }
                continue;
            }
            (true, _) => "a section".to_owned(),
        };
        values.bad.push(file_problem(section, content.to_string(), path, expected));
    }
}

fn section_keys<C: Settings>(keys: &toml::Table, path: &Path, values: &mut Values) {
    for (name, value) in keys {
        let text = match value {
            toml::Value::String(text) => Ok(text.clone()),
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                Ok(value.to_string())
            }
            _ => Err("a string, a number or true/false".to_owned()),
        };
        match (C::KEYS.iter().find(|key| key.name == name), text) {
            (Some(key), Ok(text)) => {
                values.texts.insert(key.name, (text, Source::File(path.to_owned())));
            }
            (Some(_), Err(expected)) => {
                values.bad.push(file_problem(name, value.to_string(), path, expected));
            }
            (None, _) => {
                let expected = format!("a key of [{}]{}", C::SECTION, did_you_mean::<C>(name));
                values.bad.push(file_problem(name, value.to_string(), path, expected));
            }
        }
    }
}

pub(crate) fn from_env<C: Settings>(env: &BTreeMap<String, String>, values: &mut Values) {
    let prefix = format!("WRENN_{}_", C::SECTION.to_uppercase());
    for (variable, text) in env.iter().filter(|(name, _)| name.starts_with(&prefix)) {
        let from = Source::Env(variable.clone());
        let name = variable[prefix.len()..].to_lowercase();
        match C::KEYS.iter().find(|key| key.env(C::SECTION) == *variable) {
            Some(key) => drop(values.texts.insert(key.name, (text.clone(), from))),
            None => values.bad.push(BadValue {
                expected: format!("a key of [{}]{}", C::SECTION, did_you_mean::<C>(&name)),
                name,
                given: text.chars().take(200).collect(),
                from,
            }),
        }
    }
}

fn file_problem(name: &str, given: String, path: &Path, expected: String) -> BadValue {
    let given = given.chars().take(200).collect();
    BadValue { name: name.to_owned(), given, from: Source::File(path.to_owned()), expected }
}

/// The known key that shares the longest start with `name`, if it is likely meant.
fn did_you_mean<C: Settings>(name: &str) -> String {
    let shared =
        |key: &&Key| key.name.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
    match C::KEYS.iter().max_by_key(shared) {
        Some(key) if shared(&key) >= 3 => format!(" such as {}", key.name),
        _ => String::new(),
    }
}
