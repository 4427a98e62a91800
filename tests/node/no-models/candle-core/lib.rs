//! In the place of the crate that computes with tensors. There are none here: what the engine would do with one can be
//! written down, but not come to pass.

use std::ops::Div;

/// What every attempt to make a tensor ends with.
#[derive(Debug, thiserror::Error)]
#[error("the embedded node runs no models")]
pub struct Error;

/// What every operation returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Where one would compute.
#[derive(Debug)]
pub enum Device {
    /// The only choice.
    Cpu,
}

impl Device {
    /// No device but the processor.
    pub fn cuda_if_available(_ordinal: usize) -> Result<Self> {
        Ok(Self::Cpu)
    }
}

/// A tensor: no value has this type.
#[derive(Debug)]
pub enum Tensor {}

impl Tensor {
    /// Can't be done.
    pub fn new<A>(_array: A, _device: &Device) -> Result<Self> {
        Err(Error)
    }

    /// Can't be done.
    pub fn stack(_tensors: &[Self], _dimension: usize) -> Result<Self> {
        Err(Error)
    }

    /// Never called.
    pub fn dims3(&self) -> Result<(usize, usize, usize)> {
        match *self {}
    }

    /// Never called.
    pub fn get_on_dim(&self, _dimension: usize, _index: usize) -> Result<Self> {
        match *self {}
    }

    /// Never called.
    pub fn max(&self, _dimension: usize) -> Result<Self> {
        match *self {}
    }

    /// Never called.
    pub fn squeeze(&self, _dimension: usize) -> Result<Self> {
        match *self {}
    }

    /// Never called.
    pub fn sum(&self, _dimension: usize) -> Result<Self> {
        match *self {}
    }

    /// Never called.
    pub fn to_vec1<T>(&self) -> Result<Vec<T>> {
        match *self {}
    }

    /// Never called.
    pub fn zeros_like(&self) -> Result<Self> {
        match *self {}
    }
}

impl Div<f64> for Tensor {
    type Output = Result<Self>;

    fn div(self, _divisor: f64) -> Self::Output {
        match self {}
    }
}
