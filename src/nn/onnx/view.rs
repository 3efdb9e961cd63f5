//! Tensors that are elements of others: what operators make that only move elements.
//!
//! A channel shuffle is a Reshape, a Transpose and a Reshape, a PixelUnshuffle four of them, and none of the tensors between is
//! a picture. So such an operator makes no node: it makes a view, which says for each element where it comes from, and a view
//! of a view is a view. When something computes with it, it becomes a node for each value that it takes elements from.
//!
//! What moves along the axes of a picture is kept as a list for each axis; only what does not is written out element by element.

use super::OnnxError;
use super::constant::product;
use super::graph::Refusal;
use crate::nn::model::{Gather, MAX_ELEMENTS, MAX_EXTENT, OperatorSpec, Rearrange};
use crate::nn::tensor::Shape;

/// Most elements of all maps that are written out: four bytes each.
const MAX_WRITTEN_OUT: usize = 1 << 24;
/// Most values that one view takes elements from.
pub(super) const MAX_PARTS: usize = 256;

/// How many elements may still be written out.
pub(super) struct Room(usize);

impl Room {
    pub(super) fn new() -> Self {
        Self(MAX_WRITTEN_OUT)
    }

    fn take(&mut self, elements: usize) -> Result<(), OnnxError> {
        let what = "the number of elements moved one by one (transpositions, shuffles)";
        let over = |found| OnnxError::TooLarge { what, found, limit: MAX_WRITTEN_OUT };
        self.0 = self.0.checked_sub(elements).ok_or_else(|| over(MAX_WRITTEN_OUT.saturating_sub(self.0) + elements))?;
        Ok(())
    }
}

/// Where elements come from in one value.
#[derive(Clone, PartialEq)]
pub(super) enum Map {
    /// All elements in their order.
    Whole,
    /// Along each axis on its own.
    Axes(Rearrange),
    /// For each element its index in the value, or [`Gather::NONE`].
    Elements(Vec<u32>),
}

/// The elements of a view that come from one value.
#[derive(Clone)]
pub(super) struct Part {
    /// The value of the model.
    pub source: usize,
    /// Its shape.
    pub from: Shape,
    pub map: Map,
}

impl Part {
    /// Index in the source of each element.
    pub(super) fn elements(&self, len: usize, room: &mut Room) -> Result<Vec<u32>, OnnxError> {
        room.take(len)?;
        Ok(match &self.map {
            Map::Whole => (0..len as u32).collect(),
            Map::Elements(sources) => sources.clone(),
            Map::Axes(map) => {
                let mut sources = vec![Gather::NONE; len];
                map.for_each(self.from, |to, from| sources[to] = from as u32);
                sources
            }
        })
    }

    fn is_identity(&self, len: usize) -> bool {
        len == self.from.len()
            && match &self.map {
                Map::Whole => true,
                Map::Axes(map) => map.is_identity(self.from),
                Map::Elements(sources) => sources.iter().enumerate().all(|(to, from)| to == *from as usize),
            }
    }

    /// Whether every element has a source.
    fn is_total(&self) -> bool {
        match &self.map {
            Map::Whole => true,
            Map::Axes(map) => [&map.channels, &map.rows, &map.columns].into_iter().flatten().all(Option::is_some),
            Map::Elements(sources) => !sources.contains(&Gather::NONE),
        }
    }
}

/// A tensor each of whose elements is one of a value, or a constant.
#[derive(Clone)]
pub(super) struct View {
    pub shape: Shape,
    /// No element comes from two.
    pub parts: Vec<Part>,
    /// For each element; empty if all are 0. Elements that come from a value have 0.
    pub constants: Vec<f64>,
}

impl View {
    /// All of a value.
    pub(super) fn whole(source: usize, shape: Shape) -> Self {
        Self { shape, parts: vec![Part { source, from: shape, map: Map::Whole }], constants: Vec::new() }
    }

    /// A tensor of constants, in a shape of the file.
    pub(super) fn of_constants(dims: &[usize], values: Vec<f64>, room: &mut Room) -> Result<Self, Refusal> {
        room.take(2 * values.len())?;
        Ok(Self { shape: natural(dims)?, parts: Vec::new(), constants: values })
    }

    /// The value all of whose elements this is, in their order.
    pub(super) fn is_of(&self) -> Option<usize> {
        let [part] = &self.parts[..] else { return None };
        (self.constants.is_empty() && part.is_identity(self.shape.len())).then_some(part.source)
    }

    /// The one value that every element comes from.
    pub(super) fn single(&self) -> Option<&Part> {
        let [part] = &self.parts[..] else { return None };
        (self.constants.is_empty() && part.is_total()).then_some(part)
    }

    /// The same elements, in order, in another shape.
    pub(super) fn reshaped(&self, shape: Shape, room: &mut Room) -> Result<Self, Refusal> {
        if shape == self.shape {
            return Ok(self.clone());
        }
        self.gathered(shape, 0.0, room, Some)
    }

    /// A tensor of these elements: `pick` says which one each element is, none for `fill`.
    pub(super) fn gathered(
        &self,
        shape: Shape,
        fill: f64,
        room: &mut Room,
        pick: impl Fn(usize) -> Option<usize>,
    ) -> Result<Self, Refusal> {
        let len = bounded(&[shape.channels, shape.height, shape.width])?;
        let own = self.shape.len();
        let mut parts = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            room.take(len)?;
            let written;
            let sources = match &part.map {
                Map::Elements(sources) => sources,
                Map::Whole | Map::Axes(_) => {
                    written = part.elements(own, room)?;
                    &written
                }
            };
            let moved = (0..len).map(|e| pick(e).and_then(|at| sources.get(at).copied()).unwrap_or(Gather::NONE)).collect();
            parts.push(Part { map: Map::Elements(moved), ..*part });
        }
        Ok(Self { shape, parts, constants: self.constants_at(len, fill, room, pick)? })
    }

    fn constants_at(
        &self,
        len: usize,
        fill: f64,
        room: &mut Room,
        pick: impl Fn(usize) -> Option<usize>,
    ) -> Result<Vec<f64>, OnnxError> {
        if self.constants.is_empty() && fill == 0.0 {
            return Ok(Vec::new());
        }
        room.take(2 * len)?;
        let constant = |e: usize| pick(e).map_or(fill, |at| self.constants.get(at).copied().unwrap_or(0.0));
        let constants: Vec<f64> = (0..len).map(constant).collect();
        Ok(if constants.iter().all(|c| *c == 0.0) { Vec::new() } else { constants })
    }

    /// Along one axis of a tensor of the file, of extents `dims`: which slices, none for `fill`.
    pub(super) fn along(
        &self,
        dims: &[usize],
        at: usize,
        picks: &[Option<usize>],
        fill: f64,
        room: &mut Room,
    ) -> Result<Self, Refusal> {
        let mut wanted = dims.to_vec();
        wanted[at] = picks.len();
        bounded(&wanted)?;
        let inner: usize = dims[at + 1..].iter().product();
        let pick = |e: usize| {
            let (outer, k, i) = (e / (inner * picks.len()), e / inner % picks.len(), e % inner);
            Some((outer * dims[at] + picks[k]?) * inner + i)
        };
        let axis = self.axis_of(dims, at).filter(|_| self.parts.iter().all(|p| !matches!(p.map, Map::Elements(_))));
        let Some(axis) = axis else {
            return self.gathered(natural(&wanted)?, fill, room, pick);
        };
        let mut shape = self.shape;
        match axis {
            0 => shape.channels = picks.len(),
            1 => shape.height = picks.len(),
            _ => shape.width = picks.len(),
        }
        let mut step = Rearrange::identity(self.shape);
        match axis {
            0 => step.channels = picks.to_vec(),
            1 => step.rows = picks.to_vec(),
            _ => step.columns = picks.to_vec(),
        }
        let then = |part: &Part| match &part.map {
            Map::Whole => Part { map: Map::Axes(step.clone()), ..*part },
            Map::Axes(map) => Part { map: Map::Axes(map.then(&step)), ..*part },
            Map::Elements(_) => part.clone(),
        };
        let parts = self.parts.iter().map(then).collect();
        Ok(Self { shape, parts, constants: self.constants_at(shape.len(), fill, room, pick)? })
    }

    /// Which axis of the picture (0 to 2) an axis of the file's tensor is.
    fn axis_of(&self, dims: &[usize], at: usize) -> Option<usize> {
        let own = [self.shape.channels, self.shape.height, self.shape.width];
        if dims == [&[1][..], &own].concat() {
            return at.checked_sub(1);
        }
        // Axes of 1 may be anywhere.
        let wide = |dims: &[usize]| (0..dims.len()).filter(|i| dims[*i] > 1).collect::<Vec<_>>();
        let (theirs, ours) = (wide(dims), wide(&own));
        let alike = theirs.iter().map(|i| dims[*i]).eq(ours.iter().map(|i| own[*i]));
        theirs.iter().position(|i| *i == at).filter(|_| alike).map(|k| ours[k])
    }

    /// The axes of a tensor of the file in another order.
    pub(super) fn transposed(&self, dims: &[usize], order: &[usize], room: &mut Room) -> Result<Self, Refusal> {
        let wanted: Vec<usize> = order.iter().map(|at| dims[*at]).collect();
        let stride = |at: usize| dims[at + 1..].iter().product::<usize>();
        let strides: Vec<usize> = order.iter().map(|at| stride(*at)).collect();
        let pick = |mut e: usize| {
            let mut from = 0;
            for (extent, stride) in wanted.iter().zip(&strides).rev() {
                from += e % extent * stride;
                e /= extent;
            }
            Some(from)
        };
        self.gathered(natural(&wanted)?, 0.0, room, pick)
    }

    /// Tensors of one shape as one: where one has an element, the others have none and no constant.
    pub(super) fn merged(views: Vec<Self>, shape: Shape, room: &mut Room) -> Result<Self, Refusal> {
        let mut merged = Self { shape, parts: Vec::new(), constants: Vec::new() };
        for view in views {
            if !view.constants.is_empty() {
                if merged.constants.is_empty() {
                    room.take(2 * shape.len())?;
                    merged.constants = vec![0.0; shape.len()];
                }
                merged.constants.iter_mut().zip(&view.constants).for_each(|(sum, c)| *sum += c);
            }
            for part in view.parts {
                merged.add(part, room)?;
            }
        }
        if merged.parts.len() > MAX_PARTS {
            let why = format!("elements of {} tensors are joined at once, the limit is {MAX_PARTS}", merged.parts.len());
            return Err(Refusal::Unsupported(why.into()));
        }
        Ok(merged)
    }

    fn add(&mut self, mut part: Part, room: &mut Room) -> Result<(), OnnxError> {
        let len = self.shape.len();
        let fits = match &part.map {
            Map::Whole => part.from == self.shape,
            Map::Axes(map) => map.shape() == self.shape,
            Map::Elements(_) => true,
        };
        if !fits {
            part.map = Map::Elements(part.elements(len, room)?);
        }
        // Of one value, one map is better than two.
        let Some(own) = self.parts.iter_mut().find(|own| own.source == part.source) else {
            self.parts.push(part);
            return Ok(());
        };
        if let (Map::Axes(a), Map::Axes(b)) = (&own.map, &part.map)
            && let Some(union) = union(a, b)
        {
            own.map = Map::Axes(union);
            return Ok(());
        }
        let mut sources = own.elements(len, room)?;
        match &part.map {
            // Nothing is left for another part.
            Map::Whole => {}
            Map::Axes(map) => map.for_each(part.from, |to, from| sources[to] = from as u32),
            Map::Elements(more) => {
                sources.iter_mut().zip(more).filter(|(_, from)| **from != Gather::NONE).for_each(|(to, from)| *to = *from);
            }
        }
        own.map = Map::Elements(sources);
        Ok(())
    }
}

/// Two maps that differ along one axis, and nowhere there both have a source.
fn union(a: &Rearrange, b: &Rearrange) -> Option<Rearrange> {
    let along = |a: &[Option<usize>], b: &[Option<usize>]| {
        let disjoint = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_none() || b.is_none());
        disjoint.then(|| a.iter().zip(b).map(|(a, b)| a.or(*b)).collect::<Vec<_>>())
    };
    let (channels, rows, columns) = (a.channels == b.channels, a.rows == b.rows, a.columns == b.columns);
    Some(match (channels, rows, columns) {
        (false, true, true) => Rearrange { channels: along(&a.channels, &b.channels)?, ..a.clone() },
        (true, false, true) => Rearrange { rows: along(&a.rows, &b.rows)?, ..a.clone() },
        (true, true, false) => Rearrange { columns: along(&a.columns, &b.columns)?, ..a.clone() },
        _ => return None,
    })
}

impl Part {
    /// As an operator: lists for the axes where they say it all.
    pub(super) fn factored(&self, shape: Shape) -> Result<Rearrange, &[u32]> {
        match &self.map {
            Map::Whole => Ok(Rearrange::identity(self.from)),
            Map::Axes(map) => Ok(map.clone()),
            Map::Elements(sources) => Rearrange::of_elements(shape, sources, self.from).ok_or(sources),
        }
    }
}

/// The operator of a map along axes.
pub(super) fn rearrange(map: Rearrange) -> OperatorSpec {
    let Rearrange { channels, rows, columns } = map;
    OperatorSpec::Rearrange { channels, rows, columns }
}

/// The number of elements of a shape, if a tensor may have so many.
pub(super) fn bounded(dims: &[usize]) -> Result<usize, Refusal> {
    let len = product(dims).filter(|n| (1..=MAX_ELEMENTS).contains(n));
    len.ok_or_else(|| Refusal::Bad(format!("a tensor of shape {dims:?} is made; one has 1 to {MAX_ELEMENTS} elements")))
}

/// The shape of a value that holds a tensor of the file: the second axis is the channels.
pub(super) fn natural(dims: &[usize]) -> Result<Shape, Refusal> {
    let len = bounded(dims)?;
    let shape = match dims {
        [] | [_] | [_, _] => Shape::new(len, 1, 1),
        [batch, channels, middle @ .., width] => Shape::new(batch * channels, middle.iter().product(), *width),
    };
    Ok(if shape.height.max(shape.width) > MAX_EXTENT { Shape::new(len, 1, 1) } else { shape })
}
