// The NEON kernels are written by hand: avo knows amd64 only. Rows are scored in
// groups of four, and then singly, as on amd64. Each routine is put together
// from macros, because most of it is what the others have too, and because Go's
// assembler has no words for many of the instructions: those are macros whose
// arguments are the numbers of vector registers, in the order that Go's own
// operands have, the destination last. Throughout
//
//	R0        query
//	R1        bytes in a row
//	R2        rows
//	R3        next ordinal
//	R4        rows left
//	R5        next score
//	R6 to R9  the rows of a group; R9 a single row. Each moves on as it is read
//	R10       next of the query
//	R11       bytes left of the row

// LOCATE sets row to the address of the next ordinal's row.
#define LOCATE(row) \
	MOVWU.P 4(R3), row; \
	MADD R1, R2, row, row

// NEXT4 sets R6 to R9 to the rows from R9 on.
#define NEXT4 \
	MOVD R9, R6; \
	ADD R1, R6, R7; \
	ADD R1, R7, R8; \
	ADD R1, R8, R9

// FETCH prefetches a block.
#define FETCH(fetch) \
	PRFM (fetch), PLDL1KEEP; \
	ADD $64, fetch
