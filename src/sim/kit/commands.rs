//! Commands below `/__sim/PLATFORM/`: the name is the variant of an enum, the JSON body has the members of that variant.
//!
//! The enum is the only list of a platform's commands. [`names`] and [`members`] are derived from it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{Error as Nothing, MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, EnumAccess, Error, MapAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, forward_to_deserialize_any};
use serde_json::{Map, Value};

use super::failure::Failure;

/// The members of a command, as JSON.
pub type Fields = Map<String, Value>;

/// Reads the command `name`. The error about an unknown command or member names those that are known.
pub(super) fn parse<C: DeserializeOwned>(name: &str, fields: Fields) -> Result<C, Failure> {
    let commands = names::<C>();
    let Some(name) = commands.iter().find(|known| **known == name) else {
        return Err((
            400,
            format!("no command `{name}`; known: {}", commands.join(", ")),
        ));
    };
    let members = members::<C>(name);
    if let Some(unknown) = fields.keys().find(|field| !members.contains(&field.as_str())) {
        let members = match members.as_slice() {
            [] => "none".to_owned(),
            some => some.join(", "),
        };
        return Err((
            400,
            format!("`{name}` has no member `{unknown}`; known: {members}"),
        ));
    }
    read(Fields::from_iter([((*name).to_owned(), fields.into())]).into())
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| (400, error.to_string()))
}

/// The members of a command for one channel: its `id`, and those of `T`.
pub struct Of<I, T> {
    /// The channel.
    pub id: I,
    /// All other members.
    pub rest: T,
}

impl<'de, I: DeserializeOwned, T: DeserializeOwned> Deserialize<'de> for Of<I, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Members(mut fields, _) = members_of::<T, D>(&["id"], deserializer)?;
        let id = fields.remove("id").ok_or_else(|| Error::missing_field("id"))?;
        Ok(Self {
            id: serde_json::from_value(id).map_err(|error| Error::custom(format!("`id`: {error}")))?,
            rest: serde_json::from_value(fields.into()).map_err(Error::custom)?,
        })
    }
}

/// A change of some members of `T`.
pub struct Change<T>(Members<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Change<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        members_of(&[], deserializer).map(Self)
    }
}

impl<T: Serialize + DeserializeOwned> Change<T> {
    /// Changes the members that were given; returns all of them.
    pub(in crate::sim) fn apply(self, current: &mut T) -> Result<Value, Failure> {
        let mut all = serde_json::to_value(&*current).map_err(|error| (500, error.to_string()))?;
        for (name, value) in self.0.0 {
            all[name] = value;
        }
        *current = read(all.clone())?;
        Ok(all)
    }
}

/// Members of which some or all belong to `T`. They are collected before they are checked, but [`members`] includes those of `T`.
pub struct Members<T>(Fields, PhantomData<T>);

fn members_of<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    others: &'static [&'static str],
    deserializer: D,
) -> Result<Members<T>, D::Error> {
    deserializer.deserialize_struct("Members", others, Members(Fields::new(), PhantomData))
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Members<T> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the members of a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self, A::Error> {
        let fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Self(fields, PhantomData))
    }

    /// Called by the [`Recorder`] only.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer)?;
        Ok(self)
    }
}

/// Returns the names of the commands in `C`.
pub(in crate::sim) fn names<C: DeserializeOwned>() -> Vec<&'static str> {
    record::<C>(None)
}

pub(in crate::sim) fn members<C: DeserializeOwned>(command: &'static str) -> Vec<&'static str> {
    record::<C>(Some(command))
}

fn record<C: DeserializeOwned>(command: Option<&'static str>) -> Vec<&'static str> {
    let mut seen = Vec::new();
    let recorder = Recorder {
        command,
        seen: &mut seen,
    };
    // A recorder contains no command, so this fails; the names have been recorded before.
    let _ = C::deserialize(recorder);
    seen
}

/// A deserializer without content, which records the names that are asked for: of commands, or of the members of one.
struct Recorder<'a> {
    command: Option<&'static str>,
    seen: &'a mut Vec<&'static str>,
}

impl<'de> Deserializer<'de> for Recorder<'_> {
    type Error = Nothing;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Nothing> {
        Err(Nothing::custom("no content"))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Nothing> {
        if self.command.is_some() {
            return visitor.visit_enum(self);
        }
        self.seen.extend(variants);
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Nothing> {
        self.seen.extend(fields);
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Recorder<'_> {
    type Error = Nothing;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Nothing> {
        let command = StrDeserializer::new(self.command.unwrap_or_default());
        Ok((seed.deserialize(command)?, self))
    }
}

impl<'de> VariantAccess<'de> for Recorder<'_> {
    type Error = Nothing;

    fn unit_variant(self) -> Result<(), Nothing> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Nothing> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Nothing> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Nothing> {
        self.seen.extend(fields);
        self.deserialize_any(visitor)
    }
}
