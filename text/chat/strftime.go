package chat

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// strftimeNow is the function of that name in transformers, with the date that was set instead of today's: a template that
// writes today's date would train on other text every day.
var strftimeNow = &function{"strftime_now", func(st *state, args []any, named *Object) (any, error) {
	a, err := bind("strftime_now", []string{"format"}, 1, args, named)
	if err != nil {
		return nil, err
	}
	format, err := textArg("strftime_now", a[0], "")
	if err != nil {
		return nil, err
	}
	if err := st.grow(16 * len(format)); err != nil {
		return nil, err
	}
	return strftime(format, st.date)
}}

// strftime formats as C does in the "C" locale, with glibc's flags "-" (no padding), "_" and "0".
func strftime(format string, t time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		flag := byte(0)
		if strings.IndexByte("-_0^#", format[i]) >= 0 && i+1 < len(format) {
			flag = format[i]
			i++
		}
		number := func(n, width int, pad byte) {
			switch flag {
			case '-':
				width = 0
			case '_':
				pad = ' '
			case '0':
				pad = '0'
			}
			s := strconv.Itoa(n)
			b.WriteString(strings.Repeat(string(pad), max(width-len(s), 0)) + s)
		}
		word := func(s string) {
			if flag == '^' {
				s = strings.ToUpper(s)
			}
			b.WriteString(s)
		}
		hour12 := (t.Hour()+11)%12 + 1
		year, week := t.ISOWeek()
		switch c := format[i]; c {
		case 'Y':
			b.WriteString(strconv.Itoa(t.Year()))
		case 'C':
			number(t.Year()/100, 2, '0')
		case 'y':
			number(t.Year()%100, 2, '0')
		case 'm':
			number(int(t.Month()), 2, '0')
		case 'd':
			number(t.Day(), 2, '0')
		case 'e':
			number(t.Day(), 2, ' ')
		case 'H':
			number(t.Hour(), 2, '0')
		case 'k':
			number(t.Hour(), 2, ' ')
		case 'I':
			number(hour12, 2, '0')
		case 'l':
			number(hour12, 2, ' ')
		case 'M':
			number(t.Minute(), 2, '0')
		case 'S':
			number(t.Second(), 2, '0')
		case 'f':
			number(t.Nanosecond()/1000, 6, '0')
		case 'j':
			number(t.YearDay(), 3, '0')
		case 'u':
			number((int(t.Weekday())+6)%7+1, 1, '0')
		case 'w':
			number(int(t.Weekday()), 1, '0')
		case 'U':
			number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
		case 'W':
			number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
		case 'G':
			b.WriteString(strconv.Itoa(year))
		case 'V':
			number(week, 2, '0')
		case 's':
			b.WriteString(strconv.FormatInt(t.Unix(), 10))
		case 'B':
			word(t.Month().String())
		case 'b', 'h':
			word(t.Month().String()[:3])
		case 'A':
			word(t.Weekday().String())
		case 'a':
			word(t.Weekday().String()[:3])
		case 'p':
			word(t.Format("PM"))
		case 'P':
			b.WriteString(t.Format("pm"))
		case 'Z':
			// Python's naive times have no zone, and print none.
		case 'z':
		case 'c':
			b.WriteString(fmt.Sprintf("%s %2d %s", t.Format("Mon Jan"), t.Day(), t.Format("15:04:05 2006")))
		case 'x', 'D':
			b.WriteString(t.Format("01/02/06"))
		case 'X', 'T':
			b.WriteString(t.Format("15:04:05"))
		case 'R':
			b.WriteString(t.Format("15:04"))
		case 'r':
			b.WriteString(t.Format("03:04:05 PM"))
		case 'F':
			b.WriteString(t.Format("2006-01-02"))
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '%':
			b.WriteByte('%')
		default:
			return "", valueErrorf("strftime_now does not know %%%c", c)
		}
	}
	return b.String(), nil
}
