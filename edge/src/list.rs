//! A setting that is a list: values with commas between them, none if empty.

use std::{fmt::Display, str::FromStr};

/// Values, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err: Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let values = parts
            .map(|part| part.parse().map_err(|error| format!("`{part}`: {error}")))
            .collect::<Result<_, String>>()?;
        Ok(Self(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_between_commas() {
        assert_eq!("".parse(), Ok(List::<u8>(Vec::new())));
        assert_eq!(" 1, 2 ,".parse(), Ok(List(vec![1_u8, 2])));
        assert!("1,x".parse::<List<u8>>().unwrap_err().starts_with("`x`"));
    }
}
