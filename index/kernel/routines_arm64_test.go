package kernel

func (i implementation) routines() routines {
	if i == neon {
		return routines{dotNEON, l2NEON, dotRangeNEON, l2RangeNEON}
	}
	return genericRoutines
}

func (i implementation) codeRoutines() codeRoutines {
	switch i {
	case dotprod:
		return codeRoutines{withinDotprod, dotCodesDotprod, visitARM64, insertGeneric}
	case neon:
		return codeRoutines{withinNEON, dotCodesNEON, visitARM64, insertGeneric}
	default:
		return genericCodeRoutines
	}
}
