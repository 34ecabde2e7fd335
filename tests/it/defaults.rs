//! Each default of the cluster.
