#!/usr/bin/env bash
# Looks at a report in a headless Chromium: a desktop, a phone, dark, and on paper.
#
#   tools/dev/report_screenshots.sh REPORT.html FOLDER     writes desktop.png, phone.png, dark.png, phone-dark.png, paper.pdf
#
# Nothing else in the project needs a browser: apt-get install chromium. HEIGHT (pixels, default 1400) limits the pictures;
# with optipng in the path they are made smaller.
set -euo pipefail

readonly REPORT="${1:?usage: report_screenshots.sh REPORT.html FOLDER}"
readonly FOLDER="${2:?usage: report_screenshots.sh REPORT.html FOLDER}"
readonly HEIGHT="${HEIGHT:-1400}"

browser="$(command -v chromium || command -v chromium-browser || command -v google-chrome)" ||
  { echo "report_screenshots: no Chromium; apt-get install chromium" >&2; exit 1; }
profile="$(mktemp -d)"
trap 'rm -rf "$profile"' EXIT
address="file://$(realpath "$REPORT")"
mkdir -p "$FOLDER"

# A window is at least 500 pixels wide, so the phone is a frame of 390 pixels in a page of its own.
look() {
  "$browser" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
    --force-device-scale-factor=1 --allow-file-access-from-files --virtual-time-budget=2000 "$@" >/dev/null 2>&1
}
frame="$profile/phone.html"
printf '<!doctype html><body style="margin:0"><iframe src="%s" style="border:0;width:390px;height:%spx"></iframe>' \
  "$address" "$HEIGHT" >"$frame"

dark=(--blink-settings=preferredColorScheme=0)
light=(--blink-settings=preferredColorScheme=1)
look "${light[@]}" --window-size=1280,"$HEIGHT" --screenshot="$FOLDER/desktop.png" "$address"
look "${dark[@]}" --window-size=1280,"$HEIGHT" --screenshot="$FOLDER/dark.png" "$address"
look "${light[@]}" --window-size=500,"$HEIGHT" --screenshot="$FOLDER/phone.png" "file://$frame"
look "${dark[@]}" --window-size=500,"$HEIGHT" --screenshot="$FOLDER/phone-dark.png" "file://$frame"
look --no-pdf-header-footer --print-to-pdf="$FOLDER/paper.pdf" "$address"
if command -v optipng >/dev/null; then optipng -quiet -o4 "$FOLDER"/*.png; fi
