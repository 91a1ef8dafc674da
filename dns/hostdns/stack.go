package hostdns

import (
	"bytes"
	"reflect"
	"slices"
	"time"
)

// Lookup finds the journaled record of another connection, nil if that one is not hooked, and reports
// whether the connection is running. A nil Lookup knows of no others.
type Lookup func(name string) (r *Record, running bool)

// find is the lookup itself, also of the nil one.
func (l Lookup) find(name string) (*Record, bool) {
	if l == nil {
		return nil, false
	}
	return l(name)
}

// running returns the present record of the very connection that made an older record, or nil if that
// one runs no more. What a later connection of the same name has is not meant.
func (l Lookup) running(older *Record) *Record {
	if r, running := l.find(older.Name); r != nil && running && r.sameConnection(older) {
		return r
	}
	return nil
}

// alive reports whether a connection of that name is running and hooked.
func (l Lookup) alive(name string) bool {
	r, running := l.find(name)
	return r != nil && running
}

func (r *Record) sameConnection(o *Record) bool { return r.Name == o.Name && r.Began.Equal(o.Began) }

// standing returns the record of what is to be in r's place without r, as it is now: the file of the
// first connection below that still runs, else what no connection wrote.
func (r *Record) standing(lookup Lookup) *Record {
	for at := r; ; at = at.Below {
		if at.Below == nil {
			return at
		}
		if live := lookup.running(at.Below); live != nil && !live.isUpon(r) {
			return at.upon(live)
		}
	}
}

// isUpon reports whether the connection of below is among those below r: two that each take the other
// for the one below would ask each other for ever.
func (r *Record) isUpon(below *Record) bool {
	for at := r.Below; at != nil; at = at.Below {
		if at.sameConnection(below) {
			return true
		}
	}
	return false
}

// upon returns r as if it replaced what the connection below writes now.
func (r *Record) upon(below *Record) *Record {
	next := *r
	next.Below = below
	if !bytes.Equal(next.Content, below.Ours) {
		next.Content, next.ModTime = below.Ours, time.Time{}
	}
	return &next
}

// renewed returns r as it would be if the file were hooked now, by the same connection with this wish.
func (r *Record) renewed(want Config, lookup Lookup) *Record {
	next := *r.standing(lookup)
	next.Name, next.Began = r.Name, r.Began
	next.wish(want)
	return &next
}

// wish makes r that of a connection with this wish.
func (r *Record) wish(want Config) {
	r.Domains = slices.Clone(want.Domains)
	r.Ours = render(r.Name, want, r.Content)
}

// equal reports whether r and o say the same, also of what is below.
func (r *Record) equal(o *Record) bool { return reflect.DeepEqual(r, o) }
