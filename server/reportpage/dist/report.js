// node_modules/preact/dist/preact.mjs
var e, t, n, r, i, a, o, s, c, l, u = Symbol.for("pv"), d = {}, f = [], p = /^m(i|n|o|s|text|space)$/, m = Array.isArray, h = f.slice, g = Object.assign;
function _(e) {
	e && e.parentNode && e.remove();
}
function v(n, r, i, a, o) {
	var s = {
		type: n,
		props: r,
		key: i,
		ref: a,
		__k: null,
		__: null,
		__b: 0,
		__e: null,
		__c: null,
		constructor: u,
		__v: o || ++t,
		__i: -1,
		__u: 0
	};
	return !o && e.vnode && e.vnode(s), s;
}
function y(e) {
	return e.children;
}
function b(e, t) {
	this.props = e, this.context = t, this.__g = 0;
}
function x(e, t) {
	if (t == null) return e.__ && x(e.__, e.__i + 1);
	for (var n; t < e.__k.length; t++) if ((n = e.__k[t]) && n.__e) return n.__e;
	return typeof e.type != "function" || e.props.__P ? null : x(e);
}
function S(t) {
	var n, r = t.__v, i = r.__e, a = [], o = [], s = t.__P;
	s && ((n = g({ constructor: u }, r)).__v = r.__v + 1, e.vnode && e.vnode(n), j(s, n, r, t.__n, s.namespaceURI, 32 & r.__u ? [i] : null, a, i || x(r), 32 & r.__u, o), n.__v = r.__v, n.__.__k[n.__i] = n, M(a, n, o), r.__ = r.__e = null, n.__e != i && C(n));
}
function C(e) {
	if ((e = e.__) && e.__c && !e.props.__P) return e.__e = null, e.__k.some(function(t) {
		return t && (e.__e = t.__e);
	}), C(e);
}
function w(t) {
	(8 & t.__g || (t.__g |= 8, n.push(t), i++)) && r == e.debounceRendering || ((r = e.debounceRendering) || queueMicrotask)(T);
}
function T() {
	try {
		for (var e, t = 1; n.length;) n.length > t && n.sort(a), e = n.shift(), t = n.length, 8 & e.__g && S(e);
	} finally {
		(i = n.length) && (r || queueMicrotask)(T);
	}
}
function ee(e, t, n, r, i, a, o, s, c, l, u) {
	var p, m, h, g, _, v, y = r.__k || f, b = t.length;
	for (c = E(n, t, y, c, b), p = 0; p < b; p++) (h = n.__k[p]) != null && (m = ~h.__i && y[h.__i] || d, h.__i = p, v = j(e, h, m, i, a, o, s, c, l, u), g = h.__e, (m.ref != h.ref || 8 & m.__u) && (m.ref && N(m.ref, null, h, m), h.ref && u.push(h.ref, h.__c || g, h)), _ ||= g, 4 & h.__u ? (c = D(h, c, e, !m.__v), m.__e && (m.__e = null)) : typeof h.type == "function" && v !== void 0 ? c = v : g && (c = g.nextSibling), h.__u &= -21);
	return n.__e = _, c;
}
function E(e, t, n, r, i) {
	var a, o, s, c, l, d, f, p, h, g = n.length, _ = g, b = 0, S = 0, C = e.__k = Array(i);
	for (a = 0; a < i; a++) (o = t[a]) != null && typeof o != "boolean" && typeof o != "function" ? (typeof o != "object" || o.constructor === String ? o = C[a] = v(null, o) : m(o) ? o = C[a] = v(y, { children: o }) : o.constructor === u && o.__b ? o = C[a] = v(o.type, o.props, o.key, o.ref, o.__v) : C[a] = o, c = a + b, o.__ = e, o.__b = e.__b + 1, s = null, ~(l = o.__i = O(o, n, c, _)) && (_--, (s = n[l]) && (s.__u |= 2)), s && s.__v ? (o.__u |= 16, l == c - 1 ? b-- : l == c + 1 ? b++ : l != c && (l > c ? b-- : b++, S = 1)) : (~l || (i > g ? b-- : i < g && b++), typeof o.type != "function" && (o.__u |= 4))) : C[a] = null;
	if (S) {
		for (d = [], f = [], a = 0; a < i; a++) if ((o = C[a]) && 16 & o.__u) {
			for (b = 0, p = d.length; b < p;) d[h = b + p >> 1] < o.__i ? b = h + 1 : p = h;
			d[b] = o.__i, f[a] = b + 1;
		}
		for (b = d.length; a--;) f[a] && (f[a] == b ? b-- : C[a].__u |= 4);
	}
	if (_) for (a = 0; a < g; a++) !(s = n[a]) || 2 & s.__u || (s.__e == r && (r = x(s)), ae(s, s));
	return r;
}
function D(e, t, n, r) {
	var i, a, o, s;
	if (typeof e.type == "function") {
		if (e.props.__P) return t;
		if (i = e.__k) for (a = 0; a < i.length; a++) i[a] && (i[a].__ = e, t = D(i[a], t, n, !1));
		return t;
	}
	for (t && !t.parentNode && (t = x(e)) && !t.parentNode && (t = null), o = e.__e, s = t; s && s.nodeType == 8;) s = s.nextSibling;
	for (o != s && (!r && n.moveBefore && o.parentNode ? n.moveBefore(o, t) : n.insertBefore(o, t || null)), t = o; (t &&= t.nextSibling) && t.nodeType == 8 && !t.data.startsWith("$s"););
	return t;
}
function O(e, t, n, r) {
	var i, a = e.key, o = e.type, s = t[n], c = s && !(2 & s.__u);
	if (s === null && a == null || c && a == s.key && o == s.type) return n;
	if (r > +!!c) {
		for (i = n - 1; i >= 0; i--) if ((s = t[i]) && !(2 & s.__u) && a == s.key && o == s.type) return i;
		for (i = n + 1; i < t.length; i++) if ((s = t[i]) && !(2 & s.__u) && a == s.key && o == s.type) return i;
	}
	return -1;
}
function k(e, t, n) {
	n ??= "", t[0] == "-" ? e.setProperty(t, n) : e[t] = n;
}
function A(e, t, n, r, i) {
	var a, o;
	if (t == "style") {
		if (typeof n == "string") e.style.cssText = n;
		else {
			if (typeof r == "string" && (e.style.cssText = r = ""), r) for (t in r) n && t in n || k(e.style, t);
			if (n) for (t in n) r && n[t] == r[t] || k(e.style, t, n[t]);
		}
	} else if (t[0] == "o" && t[1] == "n") typeof n != "function" && (n = null), typeof r != "function" && (r = null), (e.__e ||= {})[t] = n, n && r || (o = l[t] || (l[t] = te(t)), (e.__a ||= {})[t] = c, a = t != (t = t.replace(s, "$1")), (t = t.slice(2))[0] < "a" && (t = t.toLowerCase()), n ? e.addEventListener(t, o, a) : e.removeEventListener(t, o, a));
	else {
		if (i == "http://www.w3.org/2000/svg") t = t.replace(/xlink(H|:h)/, "h").replace(/sName$/, "s");
		else if (t != "width" && t != "height" && t != "href" && t != "list" && t != "form" && t != "tabIndex" && t != "download" && t != "rowSpan" && t != "colSpan" && t != "role" && t != "popover" && t in e) try {
			e[t] = n ?? "";
			return;
		} catch {}
		if (typeof n == "function") return;
		n == null || !1 === n && t[4] != "-" ? e.removeAttribute(t) : e.setAttribute(t, t == "popover" && n == 1 ? "" : n);
	}
}
function te(t) {
	return function(n) {
		var r = this.__e;
		if (r) {
			if (r = r[t], n[o] == null) n[o] = c++;
			else if (n[o] < this.__a[t]) return;
			return r(e.event ? e.event(n) : n);
		}
	};
}
function j(t, n, r, i, a, o, s, c, l, d) {
	var p, h, v, S, C, w, T, E, D, O, k, A, te, j, M, N, P, F, I = n.type;
	if (n.constructor !== u) return null;
	128 & r.__u && (l = 32 & r.__u, p = r.__c.__z) && (n.__u |= l, h = o = [], p.nodeType == 8 ? c = ne(p, o) : o.push(p), c = o[0] || c), (p = e.__b) && p(n);
	e: if (typeof I == "function") {
		v = s.length;
		try {
			if (E = n.props, D = (p = I.prototype) && p.render, O = (p = I.contextType) && i[p.__c], k = p ? O ? O.props.value : p.__ : i, (S = r.__c) ? (n.__c = S, 2 & S.__g && (S.__g |= 1)) : (D ? n.__c = S = new I(E, k) : (n.__c = S = new b(E, k), S.constructor = I, S.render = oe), O && O.sub(S), S.state || (S.state = {}), S.__n = i, S.__g |= 8, S.__h = [], S.__k = []), D && (S.__s || (S.__s = S.state), I.getDerivedStateFromProps && (S.__s == S.state && (S.__s = g({}, S.__s)), g(S.__s, I.getDerivedStateFromProps(E, S.__s)))), C = S.props, w = S.state, S.__v = n, r.__c) {
				if (E !== C && D && !I.getDerivedStateFromProps && S.componentWillReceiveProps && S.componentWillReceiveProps(E, k), n.__v == r.__v && !(8 & S.__g) || !(4 & S.__g) && S.shouldComponentUpdate && !1 === S.shouldComponentUpdate(E, S.__s, k)) {
					n.__v != r.__v && (S.props = E, S.state = S.__s, S.__g &= -9), n.__e = r.__e, n.__k = r.__k, n.__k.some(function(e) {
						e && (e.__ = n);
					}), f.push.apply(S.__h, S.__k), S.__k = [], S.__h.length && s.push(S), c = x(r);
					break e;
				}
				S.componentWillUpdate && S.componentWillUpdate(E, S.__s, k), D && S.componentDidUpdate && S.__h.push(function() {
					S.componentDidUpdate(C, w, T);
				});
			} else D && !I.getDerivedStateFromProps && S.componentWillMount && S.componentWillMount(), D && S.componentDidMount && S.__h.push(S.componentDidMount);
			S.context = k, S.props = E, S.__P = t, S.__g &= -5, A = e.__r, te = D ? 25 : 0;
			do
				S.__g &= -9, A && A(n), p = S.render(S.props, S.state = S.__s, S.context);
			while (8 & S.__g && ++te < 25);
			D && (f.push.apply(S.__h, S.__k), S.__k = []), S.state = S.__s, S.getChildContext && (i = g({}, i, S.getChildContext())), D && r.__c && S.getSnapshotBeforeUpdate && (T = S.getSnapshotBeforeUpdate(C, w)), j = p && p.type === y && p.key == null ? p.props.children : p, E.__P && (p = c, a = (t = E.__P).namespaceURI, l = o = null, r.props && r.props.__P != t && (r.__k.some(function(e) {
				e && ae(e, e);
			}), r.__k = null), c = r.__k ? x(r, 0) : null), c = ee(t, m(j) ? j : [j], n, r, i, a, o, s, c, l, d), E.__P && (n.__e = null, c = p), n.__u &= -161, h && h.some(_), S.__h.length && s.push(S), 1 & S.__g && (S.__g &= -4);
		} catch (t) {
			if (s.length = v, n.__v = null, l || o) {
				if (t && t.then) {
					if (n.__u |= 128 | l, o) {
						for (~(P = o.indexOf(c || void 0)) || (P = o.length); (F = o[P - 1]) && F.nodeType == 8;) P--;
						for (; P < o.length; P++) if (F = o[P]) {
							if (o[P] = null, M) {
								if (F == N) break;
							} else {
								if (F.nodeType != 8) break;
								F.data.startsWith("$s") && (N = ne(M = F));
							}
						}
					}
					if (!M) {
						for (; c && c.nodeType == 8 && c.nextSibling;) c = c.nextSibling;
						M = c;
					}
					(p = ne(M = n.__c.__z || (n.__c.__z = M))) ? (n.__e = M, c = p) : n.__e = c, c &&= c.nextSibling;
				} else o && o.some(_);
			} else n.__e = r.__e;
			n.__k ||= r.__k || [], t && t.then || re(n), e.__e(t, n, r);
		}
	} else c = n.__e = ie(r.__e, n, r, i, a, o, s, l, d, t);
	return (p = e.diffed) && p(n), c;
}
function ne(e, t) {
	if (e && e.nodeType == 8 && e.data.startsWith("$s")) for (var n = 1; e = e.nextSibling;) {
		if (e.nodeType == 8) {
			if (e.data.startsWith("$s")) n++;
			else if (e.data.startsWith("/$s") && !--n) return e;
		}
		t && t.push(e);
	}
}
function re(e) {
	e && (e.__c && (e.__c.__g |= 4), e.__k && e.__k.some(re));
}
function M(t, n, r) {
	for (var i = 0; i < r.length;) N(r[i++], r[i++], r[i++]);
	e.__c && e.__c(n, t), t.some(function(n) {
		try {
			t = n.__h, n.__h = [], t.some(function(e) {
				e.call(n);
			});
		} catch (t) {
			e.__e(t, n.__v);
		}
	});
}
function ie(t, n, r, i, a, o, s, c, l, u) {
	var f, g, v, y, b, S, C, w, T = r.props || d, E = n.props, D = n.type;
	if (D == "svg" ? a = "http://www.w3.org/2000/svg" : D == "math" ? a = "http://www.w3.org/1998/Math/MathML" : a ||= "http://www.w3.org/1999/xhtml", o) {
		for (f = 0; f < o.length; f++) if ((b = o[f]) && (D ? b.localName == D : b.nodeType == 3)) {
			t = b, o[f] = null;
			break;
		}
	}
	if (!t) {
		if (w = u.ownerDocument || document, !D) return w.createTextNode(E);
		t = w.createElementNS(a, D, E.is ? E : u), c &&= (e.__m && e.__m(n, o), !1), o = null;
	}
	if (D) {
		if (u = D == "template" && t.content || t, o = D == "textarea" && E.defaultValue != null ? null : o && h.call(u.childNodes), !c && o) for (T = {}, f = 0; f < t.attributes.length; f++) T[(b = t.attributes[f]).name] = b.value;
		for (f in T) b = T[f], f == "dangerouslySetInnerHTML" ? v = b : f == "children" || f in E || f == "value" && "defaultValue" in E || f == "checked" && "defaultChecked" in E || A(t, f, null, b, a);
		for (f in E) b = E[f], f == "children" ? y = b : f == "dangerouslySetInnerHTML" ? g = b : f == "value" ? S = b : f == "checked" ? C = b : c && typeof b != "function" || T[f] === b || A(t, f, b, T[f], a);
		g ? (c || v && (g.__html == v.__html || g.__html == t.innerHTML) || (t.innerHTML = g.__html), n.__k = []) : (v && (t.textContent = ""), (D == "foreignObject" || a == "http://www.w3.org/1998/Math/MathML" && p.test(D)) && (a = "http://www.w3.org/1999/xhtml"), ee(u, m(y) ? y : [y], n, r, i, a, o, s, o ? o[0] : r.__k && x(r, 0), c, l), o && o.some(_)), c && D != "textarea" || (f = "value", D == "progress" && S == null ? t.removeAttribute(f) : S == null || S === t[f] && (D != "progress" || S) || A(t, f, S, T[f], a), f = "checked", C != null && C != t[f] && A(t, f, C, T[f], a));
	} else T === E || c && t.data == E || (t.data = E);
	return t;
}
function N(t, n, r, i) {
	try {
		typeof t == "function" ? n ? n.__x = t(n) || 1 : (i &&= i.__c || i.__e) && (n = i.__x) && (i.__x = null, typeof n == "function" ? n() : t(null)) : t.current = n;
	} catch (t) {
		e.__e(t, r);
	}
}
function ae(t, n, r) {
	var i, a, o, s;
	if (e.unmount && e.unmount(t), !(i = t.ref) || i.current && i.current != t.__e || N(i, null, n, t), i = t.__c) {
		if (i.componentWillUnmount) try {
			i.componentWillUnmount();
		} catch (t) {
			e.__e(t, n);
		}
		i.__P = i.__n = null;
	}
	if (i = t.__k) for (s = 0; s < i.length; s++) i[s] && ae(i[s], n, typeof t.type != "function" || r && !t.props.__P);
	!r && (i = t.__c) && (i = i.__z) && (a = ne(i, o = [])) && (i == t.__e && o.some(_), _(a), _(i)), r || _(t.__e), t.__e = t.__c = t.__ = null;
}
function oe(e, t, n) {
	return this.constructor(e, n);
}
function P(t, n) {
	var r, i, a, o;
	e.__ && e.__(t, n), n.nodeType == 9 && (n = n.documentElement), i = (r = t && 32 & t.__u) ? null : n.__k, n.__k = v(y, { children: [t] }), a = [], o = [], j(n, n.__k, i || d, d, n.namespaceURI, i ? null : n.firstChild ? h.call(n.childNodes) : null, a, i ? i.__e : n.firstChild, r, o), M(a, n.__k, o), n.__k.props.children = null;
}
e = { __e: function(e, t, n, r) {
	for (var a, o, s; t = t.__;) if ((a = t.__c) && !(1 & a.__g)) {
		a.__g |= 4;
		try {
			if ((s = (o = a.constructor) && o.getDerivedStateFromError) && a.setState(o.getDerivedStateFromError(e)), a.componentDidCatch && (a.componentDidCatch(e, r || {}), s = 1), s && 8 & a.__g) return void (a.__g |= 2);
		} catch (t) {
			e = t;
		}
	}
	throw i = 0, e;
} }, t = 0, b.prototype.setState = function(e, t) {
	var n = this.__s;
	n && n != this.state || (n = this.__s = g({}, this.state)), typeof e == "function" && (e = e(g({}, n), this.props)), e && (g(n, e), this.__v && (t && this.__k.push(t), w(this)));
}, b.prototype.forceUpdate = function(e) {
	this.__v && (this.__g |= 4, e && this.__h.push(e), w(this));
}, b.prototype.render = y, n = [], i = 0, a = function(e, t) {
	return e.__v.__b - t.__v.__b;
}, o = Symbol(), s = /(PointerCapture)$|Capture$/i, c = 0, l = {};
// src/format.ts
var F = (e) => e.toLocaleString("en-US"), I = (e, t) => `${F(e)} ${t}${e == 1 ? "" : "s"}`;
function L(e) {
	if (!isFinite(e)) return "–";
	let [t, n] = e < .001 ? [e * 1e6, "µs"] : e < 1 ? [e * 1e3, "ms"] : [e, "s"];
	return `${t >= 100 ? t.toFixed(0) : t >= 10 ? t.toFixed(1) : t.toFixed(2)} ${n}`;
}
function se(e) {
	let t = Number(e);
	if (t < 1024) return `${t} B`;
	let n = -1;
	for (; t >= 1023.95 && n < 5;) t /= 1024, n++;
	return `${t.toFixed(1)} ${"KMGTPE"[n]}iB`;
}
var R = (e, t = 1) => `${(100 * e).toFixed(t)}%`, ce = (e) => e.slice(0, 12), z, B, le, ue, de = Object.is, fe = 0, pe = [], me = [], V = e, he = V.__b, ge = V.__r, _e = V.diffed, ve = V.__c, ye = V.unmount, be = V.__;
function xe(e, t) {
	V.__h && V.__h(B, e, fe || t), fe = 0;
	var n = B.__H || (B.__H = {
		__: [],
		__h: []
	});
	return e >= n.__.length && n.__.push({}), n.__[e];
}
function Se(e) {
	return fe = 1, Ce(Pe, e);
}
function Ce(e, t, n) {
	var r = xe(z++, 2);
	if (r.t = e, !r.__c && (r.__ = [n ? n(t) : Pe(void 0, t), function(e) {
		var t = (r.__N || r.__)[0], n = r.t(t, e);
		de(t, n) || (r.__N = [n, r.__[1]], r.__c.setState({}));
	}], r.__c = B, !B.__f)) {
		B.__f = !0;
		var i = B.shouldComponentUpdate;
		B.shouldComponentUpdate = function(e, t, n) {
			var r = this.__H;
			if (!r) return !0;
			var a = !1, o = this.props != e;
			if (r.__.some(function(e) {
				e.__N && (a = !0, de(e.__[0], e.__N[0]) || (o = !0));
			}), i) {
				var s = i.call(this, e, t, n);
				return a ? s || o : s;
			}
			return !a || o;
		};
	}
	return r.__;
}
function we(e, t) {
	var n = xe(z++, 3);
	!V.__s && Ne(n.__H, t) && (n.__P = !0, n.__ = e, n.u = t, B.__H.__h.push(n));
}
function Te(e, t) {
	var n = xe(z++, 4);
	!V.__s && Ne(n.__H, t) && (n.__P = !1, n.__ = e, n.u = t, B.__h.push(n));
}
function Ee(e) {
	return fe = 5, De(function() {
		return { current: e };
	}, []);
}
function De(e, t) {
	var n = xe(z++, 7);
	return Ne(n.__H, t) && (n.__ = e(), n.__H = t), n.__;
}
function Oe() {
	var e;
	do {
		for (; e = me.shift();) try {
			H(e);
		} catch (t) {
			V.__e(t, { __: (e = e.__P) && e.__v });
		}
		for (; e = pe.shift();) {
			var t = e.__H;
			if (e.__P && t) try {
				t.__h.some(H), t.__h.some(Me), t.__h = [];
			} catch (n) {
				t.__h = [], V.__e(n, e.__v);
			}
		}
	} while (me.length);
}
V.__b = function(e) {
	B = null, he && he(e);
}, V.__ = function(e, t) {
	e && t.__k && t.__k.__m && (e.__m = t.__k.__m), be && be(e, t);
}, V.__r = function(e) {
	ge && ge(e), z = 0;
	var t = (B = e.__c).__H;
	t && (le == B ? B.__h = [] : (t.__h.some(H), t.__h.some(Me), z = 0), t.__h = [], t.__.some(function(e) {
		e.__N && (e.__ = e.__N), e.u = e.__N = void 0;
	})), le = B;
}, V.diffed = function(e) {
	_e && _e(e);
	var t = e.__c;
	t && t.__H && (t.__H.__h.length && je(pe.push(t)), t.__H.__.some(function(e) {
		e.u && (e.__H = e.u);
	})), le = B = null;
}, V.__c = function(e, t) {
	t.some(function(e) {
		try {
			e.__h.some(H), e.__h = e.__h.filter(function(e) {
				return !e.__ || Me(e);
			});
		} catch (t) {
			e.__h = [function() {
				throw t;
			}];
		}
	}), ve && ve(e, t);
}, V.unmount = function(e) {
	ye && ye(e);
	var t, n, r = e.__c;
	r && r.__H && (r.__H.__.some(function(r) {
		try {
			if (r.__P && r.__c) {
				if (n === void 0) {
					for (n = e.__; n && (!n.__c || !n.__c.__P);) n = n.__;
					n &&= n.__c;
				}
				r.__P = n, je(me.push(r));
			} else H(r);
		} catch (e) {
			t = e;
		}
	}), r.__H = void 0, t && V.__e(t, r.__v));
};
var ke = typeof requestAnimationFrame == "function";
function Ae(e) {
	var t, n = function() {
		clearTimeout(r), ke && cancelAnimationFrame(t), setTimeout(e);
	}, r = setTimeout(n, 35);
	ke && (t = requestAnimationFrame(n));
}
function je(e) {
	e != 1 && ue == V.requestAnimationFrame || ((ue = V.requestAnimationFrame) || Ae)(Oe);
}
function H(e) {
	var t = B, n = e.__c;
	typeof n == "function" && (e.__c = void 0, n()), B = t;
}
function Me(e) {
	var t = B;
	e.__c = e.__(), B = t;
}
function Ne(e, t) {
	return !e || e.length != t.length || t.some(function(t, n) {
		return !de(t, e[n]);
	});
}
function Pe(e, t) {
	return typeof t == "function" ? t(e) : t;
}
// node_modules/preact/jsx-runtime/dist/jsxRuntime.mjs
var Fe = Symbol.for("pv"), Ie = 0;
Array.isArray;
function U(t, n, r, i, a, o) {
	n ||= {};
	var s, c, l = n;
	if ("ref" in l && typeof t != "function") for (c in l = {}, n) c == "ref" ? s = n[c] : l[c] = n[c];
	var u = {
		type: t,
		props: l,
		key: r,
		ref: s,
		__k: null,
		__: null,
		__b: 0,
		__e: null,
		__c: null,
		constructor: Fe,
		__v: --Ie,
		__i: -1,
		__u: 0
	};
	return (a || o) && (u.__source = a, u.__self = o), e.vnode && e.vnode(u), u;
}
// src/plot.tsx
var [W, G] = [560, 260], K = {
	left: 72,
	right: 16,
	top: 12,
	bottom: 40
}, q = (e) => {
	let t = Math.abs(e);
	return t >= 1e6 || t > 0 && t < .001 ? e.toExponential(1) : String(Number(e.toPrecision(3)));
};
function Le(e, t, n) {
	let r = t - e;
	if (!(r > 0)) return [e];
	let i = 10 ** Math.floor(Math.log10(r / n)), a = [
		1,
		2,
		5,
		10
	].map((e) => e * i).find((e) => r / e <= n) ?? 10 * i, o = [];
	for (let n = Math.ceil(e / a - 1e-9); n * a <= t + a * 1e-9; n++) o.push(Number((n * a).toPrecision(12)));
	return o;
}
function J({ title: e, x: t, y: n, series: r, logX: i, rangeY: a, bound: o, formatX: s = q, formatY: c = q }) {
	let l = r.flatMap((e) => e.points).filter((e) => isFinite(e.x) && isFinite(e.y) && (!i || e.x > 0));
	if (l.length === 0) return null;
	let u = [...l.flatMap((e) => [
		e.y,
		e.low ?? e.y,
		e.high ?? e.y
	]), ...o ? [o.at] : []], d = i ? Math.log10 : (e) => e, [f, p] = [Math.min(...l.map((e) => d(e.x))), Math.max(...l.map((e) => d(e.x)))], [m, h] = a ?? [Math.min(...u), Math.max(...u)];
	p - f < 1e-9 ? [f, p] = [f - .5, p + .5] : [f, p] = [f - .03 * (p - f), p + .03 * (p - f)], a || ([m, h] = h - m < 1e-9 ? [m - Math.max(Math.abs(m) * .1, 1e-6), h + Math.max(Math.abs(h) * .1, 1e-6)] : [m - .06 * (h - m), h + .06 * (h - m)]);
	let g = (e) => Math.round(e * 10) / 10, _ = (e) => g(K.left + (d(e) - f) / (p - f) * (W - K.left - K.right)), v = (e) => g(G - K.bottom - (Math.min(Math.max(e, m), h) - m) / (h - m) * (G - K.top - K.bottom)), y = i ? Re(f, p) : Le(f, p, 6), b = Le(m, h, 5);
	return /* @__PURE__ */ U("figure", {
		class: "plot",
		children: [/* @__PURE__ */ U("figcaption", { children: [/* @__PURE__ */ U("strong", { children: e }), r.length > 1 && /* @__PURE__ */ U("span", {
			class: "legend",
			children: r.map((e) => /* @__PURE__ */ U("span", { children: [/* @__PURE__ */ U("span", {
				class: `dot arm-${e.color % 4}`,
				"aria-hidden": "true"
			}), e.label] }, e.label))
		})] }), /* @__PURE__ */ U("svg", {
			viewBox: `0 0 ${W} ${G}`,
			role: "img",
			"aria-label": `${e}: ${n} by ${t}. ${r.map((e) => `${e.label}: ${e.points.slice(0, 12).map((e) => `${e.label ? `${e.label} ` : ""}${s(e.x)}, ${c(e.y)}`).join("; ")}`).join(". ")}`,
			children: [
				b.map((e) => /* @__PURE__ */ U("g", { children: [/* @__PURE__ */ U("path", {
					class: "grid",
					d: `M${K.left} ${v(e)}H${W - K.right}`
				}), /* @__PURE__ */ U("text", {
					x: K.left - 8,
					y: v(e) + 4,
					"text-anchor": "end",
					children: c(e)
				})] }, `y${e}`)),
				y.map((e) => /* @__PURE__ */ U("text", {
					x: _(e),
					y: G - K.bottom + 16,
					"text-anchor": "middle",
					children: s(e)
				}, `x${e}`)),
				/* @__PURE__ */ U("text", {
					class: "of",
					x: (K.left + W - K.right) / 2,
					y: G - 6,
					"text-anchor": "middle",
					children: t
				}),
				/* @__PURE__ */ U("text", {
					class: "of",
					transform: `translate(12 ${(G - K.bottom + K.top) / 2}) rotate(-90)`,
					"text-anchor": "middle",
					children: n
				}),
				o && /* @__PURE__ */ U("g", { children: [/* @__PURE__ */ U("path", {
					class: "bound",
					d: `M${K.left} ${v(o.at)}H${W - K.right}`
				}), /* @__PURE__ */ U("text", {
					class: "bound",
					x: W - K.right,
					y: v(o.at) - 4,
					"text-anchor": "end",
					children: o.label
				})] }),
				r.map((e) => {
					let t = e.points.filter((e) => isFinite(e.x) && isFinite(e.y) && (!i || e.x > 0));
					return /* @__PURE__ */ U("g", {
						class: `series arm-${e.color % 4} ${e.below ? "below" : ""}`,
						children: [e.line && t.length > 1 && /* @__PURE__ */ U("path", {
							class: "line",
							d: `M${t.map((e) => `${_(e.x)} ${v(e.y)}`).join("L")}`
						}), t.map((t, n) => /* @__PURE__ */ U("g", {
							class: t.bad ? "bad" : "",
							children: [t.low !== void 0 && t.high !== void 0 && /* @__PURE__ */ U("path", {
								class: "line",
								d: `M${_(t.x)} ${v(t.low)}V${v(t.high)}`
							}), /* @__PURE__ */ U("circle", {
								cx: _(t.x),
								cy: v(t.y),
								r: "3.5",
								children: /* @__PURE__ */ U("title", { children: `${e.label}${t.label ? `, ${t.label}` : ""}: ${s(t.x)}, ${c(t.y)}` })
							})]
						}, n))]
					}, e.label);
				})
			]
		})]
	});
}
function Re(e, t) {
	let n = [];
	for (let r = Math.floor(e); r <= t + 1; r++) for (let i of t - e > 2.5 ? [1] : t - e > 1 ? [1, 3] : t - e > .6 ? [
		1,
		2,
		5
	] : [
		1,
		1.5,
		2,
		3,
		4,
		5,
		6,
		7,
		8,
		9
	]) {
		let a = Math.log10(i) + r;
		a >= e && a <= t && n.push(Number((i * 10 ** r).toPrecision(3)));
	}
	return n.length > 1 ? n : [10 ** e, 10 ** t].map((e) => Number(e.toPrecision(2)));
}
function Y({ title: e, bars: t, format: n = q, from: r, to: i, note: a }) {
	if (t.length === 0) return null;
	let o = t.flatMap((e) => [
		e.value,
		e.low ?? e.value,
		e.high ?? e.value,
		e.limit ?? e.value
	]), s = r ?? Math.min(0, ...o), c = i ?? Math.max(...o), l = (e) => Math.round(1e3 * Math.min(Math.max((e - s) / (c - s || 1), 0), 1)) / 10;
	return /* @__PURE__ */ U("figure", {
		class: "bars",
		children: [/* @__PURE__ */ U("figcaption", { children: [/* @__PURE__ */ U("strong", { children: e }), a && /* @__PURE__ */ U("span", {
			class: "muted",
			children: a
		})] }), /* @__PURE__ */ U("ul", { children: t.map((e) => /* @__PURE__ */ U("li", { children: [
			/* @__PURE__ */ U("span", {
				class: "of",
				children: e.label
			}),
			/* @__PURE__ */ U("svg", {
				viewBox: "0 0 100 10",
				preserveAspectRatio: "none",
				"aria-hidden": "true",
				focusable: "false",
				children: [
					/* @__PURE__ */ U("rect", {
						class: "track",
						width: "100",
						height: "10",
						rx: "1"
					}),
					/* @__PURE__ */ U("rect", {
						class: e.bad ? "bad" : "value",
						width: l(e.value),
						height: "10",
						rx: "1"
					}),
					e.low !== void 0 && e.high !== void 0 && /* @__PURE__ */ U("rect", {
						class: "sure",
						x: l(e.low),
						width: Math.max(l(e.high) - l(e.low), .4),
						y: "4",
						height: "2"
					}),
					e.limit !== void 0 && /* @__PURE__ */ U("rect", {
						class: "limit-at",
						x: Math.min(l(e.limit), 99.5),
						width: "0.6",
						height: "10"
					})
				]
			}),
			/* @__PURE__ */ U("span", {
				class: `n ${e.bad ? "wrong" : ""}`,
				children: [n(e.value), e.limit !== void 0 && /* @__PURE__ */ U("span", {
					class: "muted",
					children: [" / ", n(e.limit)]
				})]
			})
		] }, e.label)) })]
	});
}
// src/ui.tsx
function ze({ title: e, children: t }) {
	return /* @__PURE__ */ U("div", {
		class: "empty",
		children: [/* @__PURE__ */ U("strong", { children: e }), t && /* @__PURE__ */ U("p", { children: t })]
	});
}
var Be = matchMedia("(max-width: 700px)");
function X({ label: e, class: t, children: n }) {
	let r = Ee(null), i = Ve(Be);
	return Te(() => {
		let e = r.current;
		if (!i || !e.tHead) return;
		let t = [...e.tHead.rows[0].cells].map((e) => e.querySelector(".offscreen") ? "" : e.textContent?.trim() ?? "");
		for (let n of e.tBodies) for (let e of n.rows) if (e.cells.length === t.length) for (let n = 0; n < t.length; n++) {
			let r = e.cells[n];
			r.dataset.label !== t[n] && (r.dataset.label = t[n]);
		}
	}), /* @__PURE__ */ U("div", {
		class: `scroll ${i ? "stacked" : ""}`,
		tabIndex: i ? void 0 : 0,
		role: "region",
		"aria-label": e,
		children: /* @__PURE__ */ U("table", {
			ref: r,
			class: t,
			children: n
		})
	});
}
function Ve(e) {
	let [t, n] = Se(e.matches);
	return we(() => {
		let t = () => n(e.matches);
		return t(), e.addEventListener("change", t), () => e.removeEventListener("change", t);
	}, [e]), t;
}
// src/measures.tsx
var He = (e) => [
	...e.report?.checks ?? [],
	...e.filters ?? [],
	...e.fresh ?? [],
	...e.latency ?? []
], Ue = {
	passed: "good",
	failed: "bad",
	inconclusive: "warn"
}, We = [
	"failed",
	"inconclusive",
	"unknown",
	"passed",
	"not run"
];
function Ge({ rows: e, checks: t }) {
	return /* @__PURE__ */ U("ul", {
		class: "gates",
		children: [...e].sort((e, t) => We.indexOf(e.state) - We.indexOf(t.state)).map((e) => {
			let n = t(e.gate);
			return /* @__PURE__ */ U("li", { children: /* @__PURE__ */ U("details", {
				open: e.state === "failed",
				children: [/* @__PURE__ */ U("summary", { children: [
					/* @__PURE__ */ U("strong", { children: e.gate }),
					/* @__PURE__ */ U("span", {
						class: `tag ${Ue[e.state] ?? ""}`,
						children: e.state
					}),
					/* @__PURE__ */ U("span", {
						class: "muted",
						children: e.state === "passed" ? I(e.checks, "check") : e.why
					})
				] }), n.length === 0 ? /* @__PURE__ */ U("p", {
					class: "muted checks",
					children: e.why || "It has made no check."
				}) : /* @__PURE__ */ U("ul", {
					class: "checks",
					children: n.map((e, t) => /* @__PURE__ */ U("li", { children: [
						/* @__PURE__ */ U("span", {
							class: e.passed ? "" : "wrong",
							children: e.subject
						}),
						/* @__PURE__ */ U(Ke, { c: e }),
						/* @__PURE__ */ U("span", {
							class: "muted",
							children: e.text
						})
					] }, t))
				})]
			}) }, e.gate);
		})
	});
}
function Ke({ c: e }) {
	let t = Math.min(0, e.value, e.limit), n = Math.max(e.value, e.limit, +(e.bound === "min" && e.limit <= 1 && e.value <= 1)) || 1, r = (e) => 5 + 110 * (e - t) / (n - t || 1), [i, a] = e.bound === "max" ? [1, r(e.limit)] : [r(e.limit), 119];
	return /* @__PURE__ */ U("span", {
		class: "limit",
		children: [
			/* @__PURE__ */ U("svg", {
				viewBox: "0 0 120 12",
				role: "img",
				"aria-label": `${e.value}, ${e.bound === "max" ? "at most" : "at least"} ${e.limit}`,
				children: [
					/* @__PURE__ */ U("rect", {
						class: "track",
						x: "1",
						y: "4",
						width: "118",
						height: "4",
						rx: "2"
					}),
					/* @__PURE__ */ U("rect", {
						class: "may",
						x: i,
						y: "4",
						width: Math.max(a - i, 1),
						height: "4",
						rx: "2"
					}),
					/* @__PURE__ */ U("circle", {
						class: e.passed ? "good" : "bad",
						cx: r(e.value),
						cy: "6",
						r: "4"
					})
				]
			}),
			/* @__PURE__ */ U("span", {
				class: "n",
				children: Number(e.value.toPrecision(4))
			}),
			/* @__PURE__ */ U("span", {
				class: "muted",
				children: [
					e.bound === "max" ? "≤" : "≥",
					" ",
					Number(e.limit.toPrecision(4))
				]
			})
		]
	});
}
var Z = (e, t = e.subject) => ({
	label: t,
	value: e.value,
	limit: e.limit,
	bad: !e.passed
});
function qe({ checks: e, undecided: t }) {
	let n = (t) => e.filter((e) => e.gate === t), r = (e) => t.find((t) => t.gate === e)?.text ?? "this gate was not run", i = n("recall").flatMap((e) => {
		let t = /^recall@(\d+)(?: in segment (.+))?$/.exec(e.subject);
		return t ? [{
			c: e,
			k: Number(t[1]),
			segment: t[2] ?? "all apps"
		}] : [];
	}), a = [...new Set(i.map((e) => e.k))].sort((e, t) => e - t), o = n("alignment").flatMap((e) => {
		let t = /^hit-rate@(\d+) against chance$/.exec(e.subject), n = /vectors find ([\d.]+)% .*?those of other users ([\d.]+)%.*? up to ([\d.]+)%/.exec(e.text);
		return t ? [{
			k: t[1],
			c: e,
			shares: n ? n.slice(1).map((e) => Number(e) / 100) : null
		}] : [];
	}), s = n("norms"), c = n("overlap"), l = n("latency"), u = [];
	i.length === 0 && u.push(["Recall", r("recall")]), s.length === 0 && u.push(["Norms beside those of the snapshot before", r("norms")]), c.length === 0 && u.push(["Candidates that both have", r("overlap")]), o.length === 0 && u.push(["Alignment beside its control", r("alignment")]), l.length === 0 && u.push(["Latency", r("latency")]);
	let d = i.length ? Math.min(.9, ...i.map((e) => Math.min(e.c.value, e.c.limit))) : 0;
	return /* @__PURE__ */ U(y, { children: [/* @__PURE__ */ U("div", {
		class: "plots",
		children: [
			a.map((e) => /* @__PURE__ */ U(Y, {
				title: `Recall@${e} by segment`,
				note: `for sure, beside what is required; from ${q(Math.floor(d * 20) / 20)} on`,
				from: Math.floor(d * 20) / 20,
				to: 1,
				format: (e) => e.toFixed(4),
				bars: i.filter((t) => t.k === e).map((e) => Z(e.c, e.segment))
			}, e)),
			o.map((e) => e.shares ? /* @__PURE__ */ U(Y, {
				title: `Alignment: hit rate@${e.k}`,
				note: `what users find of what they did; ${q(e.c.value)} times the control, ${q(e.c.limit)} required`,
				format: (e) => R(e),
				bars: [
					{
						label: "with their own vectors",
						value: e.shares[0],
						bad: !e.c.passed
					},
					{
						label: "control: those of other users",
						value: e.shares[1]
					},
					{
						label: "control: a space turned at random",
						value: e.shares[2]
					}
				]
			}, e.k) : /* @__PURE__ */ U(Y, {
				title: `Alignment: hit rate@${e.k} against its control`,
				note: "1 is chance",
				bars: [Z(e.c)]
			}, e.k)),
			n("axes").length > 0 && /* @__PURE__ */ U(Y, {
				title: "Axes of both towers",
				note: "beside what is required",
				bars: n("axes").map((e) => Z(e))
			}),
			s.length > 0 && /* @__PURE__ */ U(Y, {
				title: "Norms",
				note: "beside the snapshot before, as factors; the most that is accepted",
				bars: s.map((e) => Z(e))
			}),
			c.length > 0 && /* @__PURE__ */ U(Y, {
				title: "Candidates that both snapshots have",
				note: "as a share, beside what is required",
				to: 1,
				bars: c.map((e) => Z(e))
			}),
			l.length > 0 && /* @__PURE__ */ U(Y, {
				title: "Latency",
				note: "beside the most that is accepted",
				bars: l.map((e) => Z(e))
			})
		]
	}), u.length > 0 && /* @__PURE__ */ U("ul", {
		class: "missing",
		children: u.map(([e, t]) => /* @__PURE__ */ U("li", { children: [
			/* @__PURE__ */ U("strong", { children: e }),
			" is not here: ",
			t,
			"."
		] }, e))
	})] });
}
function Je({ m: e }) {
	let t = e.apps.recall ?? [], n = e.apps.shards, r = [...new Set(t.map((e) => e.k))].map((e, r) => ({
		label: `k = ${e}`,
		color: r,
		line: !0,
		points: t.filter((t) => t.k === e).flatMap((t) => {
			let r = n.map((n) => n.effort?.find((n) => n.k === e && Math.abs(n.target - t.target) < 1e-6));
			return r.some((e) => !e || e.ef === 0) ? [] : [{
				x: r.reduce((e, t) => e + t.scored, 0),
				y: t.recall,
				label: `target ${t.target}`,
				bad: t.recall < t.target
			}];
		}).sort((e, t) => e.x - t.x)
	})).filter((e) => e.points.length > 0);
	return r.length === 0 ? /* @__PURE__ */ U("p", {
		class: "muted",
		children: [
			"Recall against work is not here: ",
			t.length === 0 ? "the snapshot does not say what recall its build measured" : "its shards are scanned, or do not say what their calibration found",
			"."
		]
	}) : /* @__PURE__ */ U(J, {
		title: "Recall against work",
		x: "distances computed for a query, in all shards",
		y: "recall that the build measured",
		series: r,
		logX: !0,
		formatX: (e) => F(Math.round(e)),
		formatY: (e) => e.toFixed(e > .99 ? 4 : 3)
	});
}
function Ye({ m: e }) {
	let t = [...(e.apps.recall ?? []).map((t) => ({
		of: "all apps",
		eligible: e.apps.rows,
		r: t
	})), ...(e.apps.segments ?? []).flatMap((e) => (e.recall ?? []).map((t) => ({
		of: e.name,
		eligible: e.eligible,
		r: t
	})))];
	return /* @__PURE__ */ U("section", {
		class: "card flush",
		"aria-label": "Recall that the build measured",
		children: [
			/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "Recall that the build measured" }), /* @__PURE__ */ U("span", {
					class: "muted",
					children: "on users that it held out"
				})]
			}),
			/* @__PURE__ */ U("div", {
				class: "inset",
				children: /* @__PURE__ */ U(Je, { m: e })
			}),
			/* @__PURE__ */ U("p", {
				class: "hint inset",
				children: [
					"Latency is not part of a snapshot, since it is a machine's: ",
					/* @__PURE__ */ U("code", { children: "tandem bench" }),
					" measures recall against latency, and ",
					/* @__PURE__ */ U("code", { children: "--html" }),
					" draws it."
				]
			}),
			/* @__PURE__ */ U(X, {
				label: "Recall as a table",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Apps"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Eligible"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "k"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Target"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Recall"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Worst 1%"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Queries"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "ef in each shard"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: t.map(({ of: e, eligible: t, r: n }, r) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: n.k
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: n.target
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: /* @__PURE__ */ U("span", {
							class: n.recall < n.target ? "tag warn" : "",
							children: n.recall.toFixed(4)
						})
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: n.worst?.toFixed(3) ?? "–"
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(n.queries)
					}),
					/* @__PURE__ */ U("td", { children: (n.ef ?? []).every((e) => e === 0) ? "exact scan" : (n.ef ?? []).join(", ") })
				] }, r)) })]
			})
		]
	});
}
var Xe = (e) => `${I(e.apps.rows, "app")} in ${I(e.apps.shards.length, "shard")}, ${I(e.users.rows, "user")} in ${I(e.users.shards.length, "shard")}; metric ${e.metric}, ${e.dim} dimensions`, Ze = (e) => (e.inputs ?? []).map((e) => `${e.role}: ${e.name} (${se(e.size)})`).join(", "), Qe = (e, t) => [{
	label: e.previous.model_version || "before",
	color: 1,
	line: !0,
	below: !0,
	points: t.map((e) => ({
		x: e.share,
		y: e.previous
	}))
}, {
	label: e.candidate.model_version || "after",
	color: 0,
	line: !0,
	points: t.map((e) => ({
		x: e.share,
		y: e.candidate
	}))
}];
function $e({ d: e }) {
	let [t, n] = Se(0), r = e.examples ?? [], i = r[Math.min(t, r.length - 1)], [a, o] = [i?.given ?? [], i?.previous ?? []], s = [["apps", e.apps], ["users", e.users]].filter(([, e]) => e.norms?.length), c = (e.scores ?? []).filter((e) => e.quantiles?.length), l = e.segments ?? [];
	return /* @__PURE__ */ U(y, { children: [
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Rows of both",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h1", { children: [
					e.candidate.model_version,
					" beside ",
					e.previous.model_version
				] })
			}), /* @__PURE__ */ U(X, {
				label: "Rows",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Tower"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Rows"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Before"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Added"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Removed"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Kept"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: [["apps", e.apps], ["users", e.users]].map(([e, t]) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.rows)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.previous_rows)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.added)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.removed)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.kept)
					})
				] }, e)) })]
			})]
		}),
		/* @__PURE__ */ U("section", {
			class: "card",
			"aria-label": "Norms and scores",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "Norms and scores" }), /* @__PURE__ */ U("span", {
					class: "muted",
					children: "a share of the values is no larger than this"
				})]
			}), s.length + c.length === 0 ? /* @__PURE__ */ U(ze, { title: "Neither were compared" }) : /* @__PURE__ */ U("div", {
				class: "plots",
				children: [s.map(([t, n]) => /* @__PURE__ */ U(J, {
					title: `Norms of ${t}`,
					x: "share of rows",
					y: "norm",
					series: Qe(e, n.norms),
					formatX: (e) => R(e, 0)
				}, t)), c.map((t) => /* @__PURE__ */ U(J, {
					title: `Scores at rank ${t.rank}`,
					x: "share of users",
					y: "score",
					series: Qe(e, t.quantiles),
					formatX: (e) => R(e, 0)
				}, t.rank))]
			})]
		}),
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "What the same users are given",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "What the same users are given" }), /* @__PURE__ */ U("span", {
					class: "muted",
					children: "the share of candidates that both have"
				})]
			}), /* @__PURE__ */ U(X, {
				label: "Overlap",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Apps"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Eligible"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Before"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Overlap@10"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Overlap@100"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: [{
					name: "all apps",
					eligible: e.apps.rows,
					previous_eligible: e.apps.previous_rows,
					overlap: e.overlap
				}, ...l].map((e) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e.name
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.eligible)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.previous_eligible)
					}),
					[10, 100].map((t) => {
						let n = e.overlap?.find((e) => e.k === t);
						return /* @__PURE__ */ U("td", {
							class: "n",
							children: n ? R(n.mean, 2) : "–"
						}, t);
					})
				] }, e.name)) })]
			})]
		}),
		i && /* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Candidates of a user, before and after",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "Candidates, before and after" }), /* @__PURE__ */ U("label", {
					class: "inline",
					children: ["User", /* @__PURE__ */ U("select", {
						value: t,
						onChange: (e) => n(Number(e.currentTarget.value)),
						children: r.map((e, t) => /* @__PURE__ */ U("option", {
							value: t,
							children: e.user
						}, e.user))
					})]
				})]
			}), /* @__PURE__ */ U(X, {
				label: "Candidates",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "#"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: ["Before: ", e.previous.model_version]
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: ["After: ", e.candidate.model_version]
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: Array.from({ length: Math.max(a.length, o.length) }, (e, t) => /* @__PURE__ */ U("tr", { children: [/* @__PURE__ */ U("th", {
					scope: "row",
					class: "n muted",
					children: t + 1
				}), [o[t], a[t]].map((e, t) => /* @__PURE__ */ U("td", { children: e ? /* @__PURE__ */ U(y, { children: [
					e.name || e.id,
					" ",
					e.name && /* @__PURE__ */ U("code", {
						class: "muted",
						children: e.id
					}),
					" ",
					!e.both && /* @__PURE__ */ U("span", {
						class: `tag ${t ? "good" : "warn"}`,
						children: t ? "new" : "gone"
					})
				] }) : "–" }, t))] }, t)) })]
			})]
		})
	] });
}
// src/signal.ts
function et(e) {
	let t = e, n = /* @__PURE__ */ new Set();
	return {
		get value() {
			return t;
		},
		set(e) {
			if (!Object.is(e, t)) {
				t = e;
				for (let e of [...n]) e(t);
			}
		},
		follow(e) {
			return n.add(e), () => n.delete(e);
		}
	};
}
// src/stored.ts
var tt = "tandem-theme";
function nt() {
	try {
		let e = localStorage.getItem(tt);
		return e === "light" || e === "dark" ? e : "auto";
	} catch {
		return "auto";
	}
}
function rt(e) {
	e === "auto" ? delete document.documentElement.dataset.theme : document.documentElement.dataset.theme = e;
}
// src/theme.ts
var it = matchMedia("(prefers-color-scheme: dark)"), at = et(nt()), ot = () => at.value === "dark" || at.value === "auto" && it.matches, st = et(ot());
function ct() {
	rt(at.value), st.set(ot());
}
ct(), it.addEventListener("change", ct);
// src/report.tsx
function Q({ list: e }) {
	return /* @__PURE__ */ U("dl", {
		class: "facts wide",
		children: e.map(([e, t]) => /* @__PURE__ */ U("div", { children: [/* @__PURE__ */ U("dt", { children: e }), /* @__PURE__ */ U("dd", { children: t })] }, e))
	});
}
function lt({ run: e, rows: t }) {
	let n = He(e), r = n.filter((e) => !e.passed).length, i = e.report?.previous;
	return /* @__PURE__ */ U(y, { children: [/* @__PURE__ */ U("section", {
		class: "card",
		"aria-label": "Gates",
		children: [
			/* @__PURE__ */ U("header", {
				class: "head",
				children: [
					/* @__PURE__ */ U("h2", { children: "Gates" }),
					/* @__PURE__ */ U("span", {
						class: `tag ${r ? "bad" : "good"}`,
						children: r ? `${F(r)} of ${I(n.length, "check")} failed` : `${I(n.length, "check")} passed`
					}),
					/* @__PURE__ */ U("span", {
						class: "muted",
						children: i ? `against snapshot ${ce(i)}` : "without a previous snapshot"
					})
				]
			}),
			/* @__PURE__ */ U(Ge, {
				rows: t,
				checks: (e) => n.filter((t) => t.gate === e)
			}),
			(e.report?.loosened ?? []).length > 0 && /* @__PURE__ */ U("p", {
				class: "muted",
				children: [
					"Limits under which more passed than by default: ",
					e.report.loosened.join(", "),
					"."
				]
			})
		]
	}), /* @__PURE__ */ U("section", {
		class: "card",
		"aria-label": "What the gates measured",
		children: [/* @__PURE__ */ U("header", {
			class: "head",
			children: /* @__PURE__ */ U("h2", { children: "What the gates measured" })
		}), /* @__PURE__ */ U(qe, {
			checks: n,
			undecided: [...e.report?.undecided ?? [], ...e.undecided ?? []]
		})]
	})] });
}
function ut({ r: e }) {
	let t = Object.entries(e.rejected ?? {}).flatMap(([e, t]) => (t ?? []).map((t) => ({
		tower: e,
		...t
	}))), n = e.manifest;
	return /* @__PURE__ */ U(y, { children: [
		/* @__PURE__ */ U("section", {
			class: "card",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: [
					n.model,
					" at ",
					n.model_version
				] })
			}), /* @__PURE__ */ U(Q, { list: [
				["Snapshot", /* @__PURE__ */ U("code", { children: e.snapshot })],
				["Towers", Xe(n)],
				["Size", se([...n.apps.shards, ...n.users.shards].reduce((e, t) => e + t.size, 0))],
				["Built in", L(e.seconds)],
				["Inputs", Ze(n)]
			] })]
		}),
		t.length > 0 && /* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Rows that were left out",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: "Rows that were left out" })
			}), /* @__PURE__ */ U(X, {
				label: "Rows that were left out",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Tower"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Why"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Rows"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "The first"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: t.map((e, t) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e.tower
					}),
					/* @__PURE__ */ U("td", { children: e.kind }),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.count)
					}),
					/* @__PURE__ */ U("td", {
						class: "wrap",
						children: (e.first ?? []).join("; ")
					})
				] }, t)) })]
			})]
		}),
		e.gates && /* @__PURE__ */ U(lt, {
			run: e.gates,
			rows: e.rows
		}),
		/* @__PURE__ */ U(Ye, { m: n })
	] });
}
function dt({ r: e }) {
	return /* @__PURE__ */ U(y, { children: [/* @__PURE__ */ U("section", {
		class: "card",
		children: /* @__PURE__ */ U(Q, { list: [["Snapshot", /* @__PURE__ */ U("code", { children: e.run.snapshot })], ["Run", e.run.time ?? "not known"]] })
	}), /* @__PURE__ */ U(lt, {
		run: e.run,
		rows: e.rows
	})] });
}
var ft = (e) => e.setting === "ef" ? `ef ${e.ef}` : e.setting === "target" ? `target ${e.target}` : "exact scan";
function pt({ r: e }) {
	let t = e.results ?? [], n = [...new Set(t.map((e) => e.k))];
	return /* @__PURE__ */ U(y, { children: [
		/* @__PURE__ */ U("section", {
			class: "card",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: [
					e.model,
					" at ",
					e.model_version
				] })
			}), /* @__PURE__ */ U(Q, { list: [
				["Snapshot", /* @__PURE__ */ U("code", { children: e.snapshot })],
				["Tower", `${e.tower}: ${F(e.rows)} rows in ${I(e.shards, "shard")}, metric ${e.metric}, ${e.dim} dimensions`],
				...e.filter || e.segment ? [["Only", `${[e.filter, e.segment && `segment ${e.segment}`].filter(Boolean).join(" in ")}: ${F(e.eligible)} are eligible`]] : [],
				["Queries", `${F(e.queries)} real ones, one at a time, ${I(e.rounds, "round")}${e.overlap ? `; ${F(e.overlap)} of them may have calibrated the build, which flatters recall` : ""}`],
				["Machine", `${e.platform}, ${e.kernel} kernel, ${e.go}, ${I(e.processors, "processor")}`]
			] })]
		}),
		/* @__PURE__ */ U("section", {
			class: "card",
			"aria-label": "Recall against latency",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: "Recall against latency" })
			}), /* @__PURE__ */ U("div", {
				class: "plots",
				children: n.map((e) => {
					let n = t.filter((t) => t.k === e), r = (e, t, r) => ({
						label: e,
						color: r,
						line: t !== "exact",
						points: n.filter((e) => e.setting === t).map((e) => ({
							x: e.p50_us,
							y: e.recall,
							label: ft(e) + (e.default ? ", the default" : "")
						})).sort((e, t) => e.x - t.x)
					});
					return /* @__PURE__ */ U(J, {
						title: `k = ${e}`,
						x: "p50 of a query",
						y: `recall@${e}`,
						logX: !0,
						formatX: (e) => L(e / 1e6),
						formatY: (e) => e.toFixed(3),
						series: [
							r("efforts", "ef", 0),
							r("recall targets", "target", 1),
							r("exact scan", "exact", 2)
						].filter((e) => e.points.length)
					}, e);
				})
			})]
		}),
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Results",
			children: /* @__PURE__ */ U(X, {
				label: "Results",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Setting"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "k"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Recall"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Worst 1%"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "p50"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "p99"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "In a second"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Of the scan"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Distances"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: t.map((e, t) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: [
							ft(e),
							" ",
							e.default && /* @__PURE__ */ U("span", {
								class: "tag good",
								children: "default"
							})
						]
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: e.k
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: e.recall.toFixed(4)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: e.recall_worst.toFixed(3)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: L(e.p50_us / 1e6)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: L(e.p99_us / 1e6)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(Math.round(e.qps))
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: [e.speedup.toFixed(1), "x"]
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(Math.round(e.scored))
					})
				] }, t)) })]
			})
		})
	] });
}
function mt({ title: e, groups: t, of: n }) {
	let r = t.flatMap((e) => {
		let t = n(e);
		return t ? [{
			name: e.name || "without one",
			c: t
		}] : [];
	});
	return r.length === 0 ? null : /* @__PURE__ */ U("section", {
		class: "card flush",
		"aria-label": e,
		children: [
			/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: e })
			}),
			/* @__PURE__ */ U("div", {
				class: "inset plots",
				children: [/* @__PURE__ */ U(Y, {
					title: "Overlap",
					note: "the share of candidates that both answers have, as a mean; the line is what it is for sure",
					from: 0,
					to: 1,
					format: (e) => R(e),
					bars: r.map(({ name: e, c: t }) => ({
						label: e,
						value: t.overlap,
						low: t.intervals?.overlap?.lower,
						high: t.intervals?.overlap?.upper
					}))
				}), /* @__PURE__ */ U(Y, {
					title: "Shift of scores",
					note: "of an id that both answers have, as a share",
					format: (e) => R(e, 2),
					bars: r.map(({ name: e, c: t }) => ({
						label: e,
						value: t.score_shift
					}))
				})]
			}),
			/* @__PURE__ */ U(X, {
				label: e,
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Queries"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Answered"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Overlap"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "1% are below"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Another first"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Ranks moved"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Scores moved"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: r.map(({ name: e, c: t }) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(t.queries)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: R(t.overlap, 2)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: R(t.overlap_p1)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: R(t.top_changed)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: q(t.rank_change)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: R(t.score_shift, 2)
					})
				] }, e)) })]
			})
		]
	});
}
function ht({ r: e }) {
	let t = [
		{
			...e.overall,
			name: "all"
		},
		...(e.segments ?? []).map((e) => ({
			...e,
			name: `segment ${e.name || "none"}`
		})),
		...(e.arms ?? []).map((e) => ({
			...e,
			name: `arm ${e.name || "none"}`
		}))
	], n = (e) => /* @__PURE__ */ U(y, { children: [
		e.model,
		" at ",
		e.model_version,
		", ",
		/* @__PURE__ */ U("code", { children: ce(e.digest) })
	] }), r = Object.entries(e.left_out ?? {});
	return /* @__PURE__ */ U(y, { children: [
		(e.broken ?? []).length > 0 && /* @__PURE__ */ U("section", {
			class: "verdict bad",
			"aria-label": "Thresholds that are broken",
			children: e.broken.map((e) => /* @__PURE__ */ U("article", { children: /* @__PURE__ */ U("h2", { children: e }) }, e))
		}),
		/* @__PURE__ */ U("section", {
			class: "card",
			children: /* @__PURE__ */ U(Q, { list: [
				["Against", n(e.against)],
				...e.baseline ? [["Baseline", n(e.baseline)]] : [],
				["Log", `${e.log}: ${F(e.read)} queries from ${e.first} to ${e.last}; ${F(e.overall.queries)} were asked, ${F(e.overall.failed)} failed`],
				...r.length ? [["Left out", r.map(([e, t]) => `${F(t)} ${e}`).join(", ")]] : [],
				["Machine", `${e.platform}, ${e.kernel} kernel, ${e.go}`]
			] })
		}),
		/* @__PURE__ */ U(mt, {
			title: "From the recorded answers",
			groups: t,
			of: (e) => e
		}),
		/* @__PURE__ */ U(mt, {
			title: "From the baseline's answers",
			groups: t,
			of: (e) => e.baseline
		}),
		/* @__PURE__ */ U("section", {
			class: "card",
			"aria-label": "Latency",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "Latency" }), /* @__PURE__ */ U("span", {
					class: "muted",
					children: "what is recorded depends on the server's machine and load"
				})]
			}), /* @__PURE__ */ U("div", {
				class: "plots",
				children: [["p50", "p50_us"], ["p99", "p99_us"]].map(([t, n]) => /* @__PURE__ */ U(Y, {
					title: t,
					format: (e) => L(e / 1e6),
					bars: [
						{
							label: "recorded",
							value: e.overall.recorded[n]
						},
						{
							label: "replayed",
							value: e.overall.replayed[n]
						},
						...e.overall.baseline ? [{
							label: "of the baseline",
							value: e.overall.baseline.latency[n]
						}] : []
					]
				}, t))
			})]
		}),
		(e.failures ?? []).length > 0 && /* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Failures",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: /* @__PURE__ */ U("h2", { children: "Failures" })
			}), /* @__PURE__ */ U(X, {
				label: "Failures",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Code"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Queries"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "The first"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: e.failures.map((e) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: e.code
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.queries)
					}),
					/* @__PURE__ */ U("td", {
						class: "wrap",
						children: e.example
					})
				] }, e.code)) })]
			})]
		})
	] });
}
var gt = (e, t) => e === "all" ? "all" : t ? `${e} ${t}` : `no ${e}`, $ = (e, t) => e ? `${t(e.lower)} to ${t(e.upper)}` : "", _t = 20;
function vt({ o: e }) {
	if (e.refused) return /* @__PURE__ */ U("section", {
		class: "card",
		"aria-label": "Other policies",
		children: [/* @__PURE__ */ U("header", {
			class: "head",
			children: /* @__PURE__ */ U("h2", { children: "Other policies" })
		}), /* @__PURE__ */ U(ze, {
			title: "There are no estimates",
			children: e.refused
		})]
	});
	let t = e.policies ?? [], n = (e) => `${e.policy}${e.all_arms ? "" : `, ${gt("arm", e.arm)}`}`, r = (e) => R(e, 2), i = (e) => e ? /* @__PURE__ */ U(y, { children: [
		r(e.value),
		" ",
		/* @__PURE__ */ U("span", {
			class: "muted",
			children: $(e.interval, r)
		})
	] }) : "none";
	return /* @__PURE__ */ U("section", {
		class: "card flush",
		"aria-label": "Other policies",
		children: [
			/* @__PURE__ */ U("header", {
				class: "head",
				children: [/* @__PURE__ */ U("h2", { children: "Other policies" }), /* @__PURE__ */ U("span", {
					class: "muted",
					children: [
						F(e.requests),
						" requests have propensities, ",
						F(e.explored_requests),
						" of them were explored; ",
						F(e.requests_without_propensities),
						" have none"
					]
				})]
			}),
			(e.generations_left_out ?? []).map((e) => /* @__PURE__ */ U("p", {
				class: "inset muted",
				children: [
					F(e.requests),
					" requests of generation ",
					e.generation,
					" are left out: ",
					e.why
				]
			}, e.generation)),
			e.requests_not_in_target + e.target_answers_not_used > 0 && /* @__PURE__ */ U("p", {
				class: "inset muted",
				children: [
					F(e.requests_not_in_target),
					" requests are not in the target, and ",
					F(e.target_answers_not_used),
					" answers of it are not used."
				]
			}),
			/* @__PURE__ */ U("div", {
				class: "inset plots",
				children: [/* @__PURE__ */ U(Y, {
					title: "Hits of an exposure, doubly robust",
					note: "the line is what it is with 95% confidence, by user",
					format: r,
					from: 0,
					bars: t.flatMap((e) => e.dr ? [{
						label: n(e),
						value: e.dr.value,
						low: e.dr.interval?.lower,
						high: e.dr.interval?.upper
					}] : [])
				}), /* @__PURE__ */ U(Y, {
					title: "Places that cannot be evaluated",
					note: "what the policy has there could not have been served",
					format: (e) => R(e),
					from: 0,
					to: 1,
					bars: t.map((e) => ({
						label: n(e),
						value: e.share_not_evaluable
					}))
				})]
			}),
			/* @__PURE__ */ U(X, {
				label: "Other policies",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Policy"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Exposures"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Not evaluable"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Effective"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Served"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "IPS"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "SNIPS"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "DR"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: t.map((e) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: n(e)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.exposures)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: R(e.share_not_evaluable)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(Math.round(e.effective_exposures))
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: i(e.logged)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: i(e.ips)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: i(e.snips)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: i(e.dr)
					})
				] }, n(e))) })]
			})
		]
	});
}
function yt({ r: e }) {
	let t = e.hit_rates ?? [], n = e.groups ?? [], r = [...new Set(t.map((e) => e.k))], i = (e) => R(e, 2), a = n.filter((e) => e.by === "rank"), o = n.filter((e) => e.by !== "rank"), s = (e, t) => ({
		y: e,
		low: t?.lower,
		high: t?.upper
	});
	return /* @__PURE__ */ U(y, { children: [
		/* @__PURE__ */ U("section", {
			class: "card",
			children: /* @__PURE__ */ U(Q, { list: [
				["Days", (e.days ?? []).map((e) => e.day).join(", ")],
				["Requests", `${F(e.requests)} of ${I(e.users, "user")}, ${F(e.empty_requests)} without a candidate`],
				["Exposures", F(e.exposures)],
				["A hit is", `an exposure with ${e.hits.join(", ")}`]
			] })
		}),
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Hit rates",
			children: [
				/* @__PURE__ */ U("header", {
					class: "head",
					children: [/* @__PURE__ */ U("h2", { children: "Hit rates" }), /* @__PURE__ */ U("span", {
						class: "muted",
						children: "requests with a hit among the first k; 95% by user"
					})]
				}),
				/* @__PURE__ */ U("div", {
					class: "inset plots",
					children: r.map((e) => /* @__PURE__ */ U(Y, {
						title: `Hit rate@${e}`,
						format: i,
						from: 0,
						bars: t.filter((t) => t.k === e).slice(0, _t).map((e) => ({
							label: gt(e.by, e.name),
							value: e.rate,
							low: e.interval?.lower,
							high: e.interval?.upper
						}))
					}, e))
				}),
				/* @__PURE__ */ U(X, {
					label: "Hit rates",
					children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "col",
							children: "Requests"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "k"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Number"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Hits"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Rate"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "95% by user"
						})
					] }) }), /* @__PURE__ */ U("tbody", { children: t.map((e) => /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "row",
							children: gt(e.by, e.name)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: e.k
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.requests)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.hits)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: i(e.rate)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: $(e.interval, i)
						})
					] }, `${e.by} ${e.name} ${e.k}`)) })]
				})
			]
		}),
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Exposures",
			children: [
				/* @__PURE__ */ U("header", {
					class: "head",
					children: /* @__PURE__ */ U("h2", { children: "Exposures" })
				}),
				/* @__PURE__ */ U("div", {
					class: "inset plots",
					children: [/* @__PURE__ */ U(J, {
						title: "Hits by rank",
						x: "rank",
						y: "hits of an exposure",
						formatY: i,
						series: [{
							label: "hits",
							color: 0,
							line: !0,
							points: a.map((e) => ({
								x: Number(e.name),
								...s(e.rate, e.interval)
							}))
						}]
					}), /* @__PURE__ */ U(J, {
						title: "Play time by rank",
						x: "rank",
						y: "seconds of an exposure",
						series: [{
							label: "seconds",
							color: 1,
							line: !0,
							points: a.map((e) => ({
								x: Number(e.name),
								...s(e.play_time, e.play_time_interval)
							}))
						}]
					})]
				}),
				/* @__PURE__ */ U(X, {
					label: "Exposures",
					children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "col",
							children: "Exposures"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Number"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Users"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Hits"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Rate"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "95% by user"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Seconds"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "95% by user"
						})
					] }) }), /* @__PURE__ */ U("tbody", { children: [...o, ...a.slice(0, _t)].map((e) => /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "row",
							children: gt(e.by, e.name)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.exposures)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.users)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.hits)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: i(e.rate)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: $(e.interval, i)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: q(e.play_time)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: $(e.play_time_interval, q)
						})
					] }, `${e.by} ${e.name}`)) })]
				})
			]
		}),
		(e.interleaving ?? []).map((e) => /* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Interleaving",
			children: [/* @__PURE__ */ U("header", {
				class: "head",
				children: [
					/* @__PURE__ */ U("h2", { children: [
						e.arms[0],
						" and ",
						e.arms[1],
						", interleaved"
					] }),
					/* @__PURE__ */ U("span", {
						class: `tag ${e.p <= .05 ? "good" : ""}`,
						children: e.p <= .05 ? `users prefer ${e.users_prefer[1] > e.users_prefer[0] ? e.arms[1] : e.arms[0]}` : "no preference is found"
					}),
					/* @__PURE__ */ U("span", {
						class: "muted",
						children: [
							"p ",
							q(e.p),
							", of ",
							I(e.users, "user"),
							" and ",
							I(e.requests, "request")
						]
					})
				]
			}), /* @__PURE__ */ U(X, {
				label: "Interleaving",
				children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "col",
						children: "Arm"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Hits"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Users prefer it"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "Share of hits"
					}),
					/* @__PURE__ */ U("th", {
						scope: "col",
						class: "n",
						children: "95% by user"
					})
				] }) }), /* @__PURE__ */ U("tbody", { children: e.arms.map((t, n) => /* @__PURE__ */ U("tr", { children: [
					/* @__PURE__ */ U("th", {
						scope: "row",
						children: t
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.credits[n])
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: F(e.users_prefer[n])
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: e.share_of_second === void 0 ? "none" : R(n ? e.share_of_second : 1 - e.share_of_second, 2)
					}),
					/* @__PURE__ */ U("td", {
						class: "n",
						children: n ? $(e.interval, i) : ""
					})
				] }, t)) })]
			})]
		}, e.arms.join(" "))),
		/* @__PURE__ */ U(vt, { o: e.off_policy }),
		/* @__PURE__ */ U("section", {
			class: "card flush",
			"aria-label": "Catalogue",
			children: [
				/* @__PURE__ */ U("header", {
					class: "head",
					children: /* @__PURE__ */ U("h2", { children: "Catalogue" })
				}),
				/* @__PURE__ */ U("div", {
					class: "inset plots",
					children: [/* @__PURE__ */ U(J, {
						title: "How uneven exposures are",
						x: "day",
						y: "Gini of apps that were shown",
						rangeY: [0, 1],
						formatX: (t) => e.days?.[Math.round(t)]?.day.slice(5) ?? "",
						series: [{
							label: "Gini",
							color: 2,
							line: !0,
							points: (e.days ?? []).map((e, t) => ({
								x: t,
								y: e.gini,
								label: e.day
							}))
						}]
					}), /* @__PURE__ */ U(Y, {
						title: "Coverage",
						note: "the share of the apps of a snapshot that were shown",
						format: (e) => R(e),
						from: 0,
						to: 1,
						bars: (e.snapshots ?? []).flatMap((e) => e.coverage == null ? [] : [{
							label: ce(e.snapshot),
							value: e.coverage
						}])
					})]
				}),
				/* @__PURE__ */ U(X, {
					label: "Catalogue",
					children: [/* @__PURE__ */ U("thead", { children: /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "col",
							children: "Snapshot"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Exposures"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Apps shown"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Apps"
						}),
						/* @__PURE__ */ U("th", {
							scope: "col",
							class: "n",
							children: "Never shown"
						})
					] }) }), /* @__PURE__ */ U("tbody", { children: (e.snapshots ?? []).map((e) => /* @__PURE__ */ U("tr", { children: [
						/* @__PURE__ */ U("th", {
							scope: "row",
							children: /* @__PURE__ */ U("code", { children: ce(e.snapshot) })
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.exposures)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: F(e.apps_shown)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: e.apps == null ? "not known" : F(e.apps)
						}),
						/* @__PURE__ */ U("td", {
							class: "n",
							children: e.apps_never_shown == null ? "not known" : F(e.apps_never_shown)
						})
					] }, e.snapshot)) })]
				})
			]
		})
	] });
}
function bt({ told: e }) {
	let t = e.report;
	return /* @__PURE__ */ U("main", {
		class: "stack",
		children: [
			/* @__PURE__ */ U("header", {
				class: "of-report",
				children: [/* @__PURE__ */ U("h1", { children: e.title }), /* @__PURE__ */ U("p", {
					class: "muted",
					children: [
						"made ",
						e.made,
						" by ",
						e.tool,
						"; this page has all that it shows, and asks nobody"
					]
				})]
			}),
			e.kind === "build" ? /* @__PURE__ */ U(ut, { r: t }) : e.kind === "gate" ? /* @__PURE__ */ U(dt, { r: t }) : e.kind === "diff" ? /* @__PURE__ */ U($e, { d: t }) : e.kind === "replay" ? /* @__PURE__ */ U(ht, { r: t }) : e.kind === "bench" ? /* @__PURE__ */ U(pt, { r: t }) : e.kind === "feedback" ? /* @__PURE__ */ U(yt, { r: t }) : /* @__PURE__ */ U(ze, { title: `This page does not know reports of the kind ${e.kind}` }),
			/* @__PURE__ */ U("details", {
				class: "card",
				children: [/* @__PURE__ */ U("summary", { children: "The report as JSON" }), /* @__PURE__ */ U("pre", {
					class: "program",
					tabIndex: 0,
					children: JSON.stringify(t, null, 2)
				})]
			})
		]
	});
}
P(/* @__PURE__ */ U(bt, { told: JSON.parse(document.getElementById("report").textContent) }), document.getElementById("page"));
