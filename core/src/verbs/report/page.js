(function () {
  var written = Date.parse(document.getElementById("written").dateTime);
  var note = document.getElementById("stale");
  function look() {
    var minutes = Math.floor((Date.now() - written) / 60000);
    if (minutes < 15) return;
    var age = minutes < 120 ? minutes + " minutes" : minutes < 2880 ? Math.floor(minutes / 60) + " hours" : Math.floor(minutes / 1440) + " days";
    note.textContent = "This page is " + age + " old. What it says may not be true any more.";
    note.hidden = false;
  }
  look();
  setInterval(look, 60000);
})();
