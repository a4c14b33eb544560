#include "textflag.h"
#include "neon_arm64.h"

// func prefetchARM64(data *byte, stride int, length int, ordinals []uint32)
TEXT ·prefetchARM64(SB), NOSPLIT, $0-48
	MOVD data+0(FP), R2
	MOVD stride+8(FP), R1
	MOVD length+16(FP), R5
	MOVD ordinals_base+24(FP), R3
	MOVD ordinals_len+32(FP), R4
	ADD  R4<<2, R3, R4

row:
	CMP R4, R3
	BHS done
	LOCATE(R6)
	ADD R5, R6, R7

line:
	FETCH(R6)
	CMP R7, R6
	BLO line
	B   row

done:
	RET
