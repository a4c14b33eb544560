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
		return codeRoutines{dotCodesDotprod, dotCodesRangeDotprod}
	case neon:
		return codeRoutines{dotCodesNEON, dotCodesRangeNEON}
	default:
		return genericCodeRoutines
	}
}
