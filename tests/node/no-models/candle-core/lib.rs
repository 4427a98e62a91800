//! Replaces the crate that computes with tensors. No tensor can be made here, so the engine's code compiles and is never run.

use std::ops::Div;

/// The error of every attempt to make a tensor.
#[derive(Debug, thiserror::Error)]
#[error("the embedded node runs no models")]
pub struct Error;

/// The result of every operation.
pub type Result<T> = std::result::Result<T, Error>;

/// The device for computations.
#[derive(Debug)]
pub enum Device {
    /// The only choice.
    Cpu,
}

impl Device {
    /// Always the processor.
    pub fn cuda_if_available(_ordinal: usize) -> Result<Self> {
        Ok(Self::Cpu)
    }
}

/// A tensor. No value has this type.
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
