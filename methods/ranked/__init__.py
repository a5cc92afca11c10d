"""What IncReg and SPP share: ranks, and columns of unrolled convolutions."""
