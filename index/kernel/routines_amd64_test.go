package kernel

func (i implementation) routines() routines {
	switch i {
	case avx512:
		return routines{dotAVX512, l2AVX512, dotRangeAVX512, l2RangeAVX512}
	case avx2:
		return routines{dotAVX2, l2AVX2, dotRangeAVX2, l2RangeAVX2}
	default:
		return genericRoutines
	}
}

func (i implementation) codeRoutines() codeRoutines {
	switch i {
	case vnni:
		return codeRoutines{withinVNNI, nil, visitAMD64, insertAVX512}
	case avx2:
		return codeRoutines{withinAVX2, nil, visitAMD64, insertGeneric}
	default:
		return genericCodeRoutines
	}
}
