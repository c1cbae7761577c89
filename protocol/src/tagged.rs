//! Frames from JSON text, by their `type`.
//!
//! Serde's own way with a tagged enum first reads the frame into values, which changes the numbers of
//! metadata and forgets how it was written. Here the text is read twice: for its type, then as that type.

macro_rules! tagged {
    ($frame:ident: $($kind:ident),+ $(,)?) => {
        impl $frame {
            /// From the JSON text of one frame.
            ///
            /// # Errors
            /// The text is no JSON object, its `type` is unknown, or a field is missing or not of its type.
            pub fn from_json(text: &str) -> serde_json::Result<Self> {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "snake_case")]
                enum Kind {
                    $($kind),+
                }
                #[derive(serde::Deserialize)]
                struct Tag {
                    #[serde(rename = "type")]
                    kind: Kind,
                }
                // An array would be taken for an object's values in their order.
                if !text.trim_start().starts_with('{') {
                    return Err(serde::de::Error::custom("not a JSON object"));
                }
                let Tag { kind } = serde_json::from_str(text)?;
                Ok(match kind {
                    $(Kind::$kind => Self::$kind(serde_json::from_str(text)?),)+
                })
            }
        }

        impl<'de> serde::Deserialize<'de> for $frame {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Box::<serde_json::value::RawValue>::deserialize(deserializer)?;
                Self::from_json(text.get()).map_err(serde::de::Error::custom)
            }
        }
    };
}

pub(crate) use tagged;
